"""`turnout config check` over the three kinds of files."""

import json

import pytest

from turnout.cli import main


def run(capsys, *arguments: str):
    """Run the command; return its status and what it printed."""
    with pytest.raises(SystemExit) as caught:
        main.run(["config", "check", *arguments])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("turnout.yaml", "http_port: 80"),
        ("other.yaml", "processes: 2"),
        ("routes.yaml", "routes: {m: {champion: 1}}"),
        ("model.yaml", "runtime: onnx"),
    ],
)
def test_a_good_file_is_ok(tmp_path, capsys, name, text):
    """What a file is, its name tells."""
    path = tmp_path / name
    path.write_text(text)
    assert run(capsys, str(path)) == (0, f"{path}: ok\n", "")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("turnout.yaml", "\nhttp_prot: 80", ":2: unknown key 'http_prot'; did you mean 'http_port'?"),
        (
            "routes.yaml",
            "routes:\n  m: {champoin: 1}",
            "routes.yaml:2: unknown key 'champoin'; did you mean 'champion'?",
        ),
        ("model.yaml", "runtime: onx", "model.yaml:1: runtime: invalid enum value 'onx'; one of onnx, sklearn"),
        ("routes.yaml", "\udcff", "is not UTF-8"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path, capsys, name, text, complaint):
    """The status is 1 and the complaint names line, key and nearest name."""
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    code, out, err = run(capsys, str(path))
    assert (code, out) == (1, "")
    assert complaint in err


def test_the_kind_can_be_said(tmp_path, capsys):
    """A file of another name is read as what it is said to be."""
    path = tmp_path / "canary.yaml"
    path.write_text("routes: {}")
    assert run(capsys, str(path), "--kind", "routes")[0] == 0
    assert run(capsys, str(path))[0] == 1


def test_json_is_one_document(tmp_path, capsys):
    """On success and on failure."""
    path = tmp_path / "routes.yaml"
    path.write_text("routes: {}")
    code, out, _ = run(capsys, str(path), "--output", "json")
    assert (code, json.loads(out)) == (0, {"file": str(path), "kind": "routes", "ok": True})
    code, out, _ = run(capsys, str(tmp_path / "absent.yaml"), "--output", "json")
    assert (code, list(json.loads(out))) == (1, ["error"])
