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
    code, _, err = run(capsys, str(path))
    assert code == 1
    assert err.endswith("; it was read as turnout.yaml, for a file of routes add --kind routes\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("runtime: onnx\nartifact: nope.onnx", "model.yaml:2: artifact 'nope.onnx' is missing"),
        ("artifact: m.onnx\ngolden: golden.json", "model.yaml:2: golden 'golden.json' is missing"),
        ("runtime: jvm\noptions:\n  jars:\n    - a.jar", "model.yaml:4: jar 'a.jar' is missing"),
    ],
)
def test_files_that_a_model_names_must_be_there(tmp_path, capsys, text, complaint):
    """A model.yaml is refused where its artifact, golden file or a jar is missing beside it."""
    path = tmp_path / "model.yaml"
    path.write_text(text)
    (tmp_path / "m.onnx").touch()
    code, out, err = run(capsys, str(path))
    assert (code, out) == (1, "")
    assert complaint in err
    for name in ("nope.onnx", "golden.json", "a.jar"):
        (tmp_path / name).touch()
    assert run(capsys, str(path))[0] == 0


def test_a_models_default_is_checked_in_its_versions(tmp_path, capsys):
    """A model.yaml above numbered folders speaks for those that have none of their own."""
    path = tmp_path / "model.yaml"
    path.write_text("artifact: m.onnx")
    for name in ("1/m.onnx", "2/other.onnx", "2/model.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert run(capsys, str(path))[0] == 0
    (tmp_path / "3").mkdir()
    assert "model.yaml:1: version 3: artifact 'm.onnx' is missing" in run(capsys, str(path))[2]


def test_json_is_one_document(tmp_path, capsys):
    """On success and on failure."""
    path = tmp_path / "routes.yaml"
    path.write_text("routes: {}")
    code, out, _ = run(capsys, str(path), "--output", "json")
    assert (code, json.loads(out)) == (0, {"file": str(path), "kind": "routes", "ok": True})
    code, out, _ = run(capsys, str(tmp_path / "absent.yaml"), "--output", "json")
    assert (code, list(json.loads(out))) == (1, ["error"])
