"""The `turnout` command itself: what it lists, what it loads, how it refuses."""

import subprocess
import sys

import pytest

from turnout.cli import main


def _run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main.run(arguments)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_help_lists_every_command_and_loads_none():
    """A quick look at the help costs no engine, no gateway and no control plane."""
    script = (
        "import sys; from turnout.cli import main\n"
        "try: main.run(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'gateway', 'adapters', 'grpc', 'numpy', 'onnxruntime', 'httpx', 'sqlite3'}), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"{name} " in ran.stdout for name in main.COMMANDS)
    assert ran.stderr == "[]\n"


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_of_the_table_exists(capsys, name):
    """Each can be loaded and explains itself."""
    code, out, _ = _run(capsys, name, "--help")
    assert code == 0
    assert f"turnout {name}" in out


def test_the_version_is_that_of_the_package(capsys):
    """One line, and done."""
    code, out, _ = _run(capsys, "--version")
    assert code == 0
    assert out.startswith("turnout 0.")


def test_an_unknown_command_is_wrong_usage(capsys):
    """The status is 2 and the message names it."""
    code, _, err = _run(capsys, "sevre")
    assert code == 2
    assert "sevre" in err


def test_envoy_is_refused_until_it_exists(capsys, tmp_path):
    """What is not in this release says so instead of doing something else."""
    code, _, err = _run(capsys, "serve", str(tmp_path), "--edge", "envoy")
    assert code == 2
    assert err == "turnout: --edge envoy is not in this release; use --edge uvicorn\n"
    code, out, _ = _run(capsys, "serve", "--help")
    assert code == 0
    assert "envoy is not in this" in out


def test_adopting_needs_a_state_folder(capsys, tmp_path):
    """A mistyped folder is not made."""
    code, _, err = _run(capsys, "gateway", "adopt", "--state", str(tmp_path / "none"))
    assert code == 1
    assert "is no state folder" in err


def test_a_restart_needs_a_running_gateway(capsys, tmp_path):
    """There is nothing to replace, and no wish is left behind for the next start."""
    code, _, err = _run(capsys, "gateway", "restart", "--state", str(tmp_path))
    assert code == 1
    assert "no gateway runs with state folder" in err
    assert list(tmp_path.iterdir()) == []


def test_adopting_while_the_gateway_is_down_waits_for_its_next_start(capsys, tmp_path):
    """The wish is kept in STATE."""
    code, out, _ = _run(capsys, "gateway", "adopt", "--state", str(tmp_path))
    assert code == 0
    assert "at its next start" in out
    assert (tmp_path / "adopt").exists()
