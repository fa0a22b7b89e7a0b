"""`turnout serve` and its kin turn flags and turnout.yaml into settings."""

from pathlib import Path

import pytest

from turnout.cli import control_command, main
from turnout.cli import serve as serve_module


class _Stopped(Exception):
    """The command got as far as its settings."""


def _stop(*_given, **_flags):
    raise _Stopped


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs a command and returns what the parent was asked to run, or the refusal."""

    def run(*arguments):
        asked = []
        monkeypatch.setattr(serve_module, "run_parent", lambda *told: asked.append(told) or 0)
        with pytest.raises(SystemExit) as caught:
            main.run(arguments)
        return (caught.value.code, asked[0] if asked else capsys.readouterr().err)

    return run


def test_flags_become_settings(run, tmp_path):
    """What is given is handed over; what is not keeps its default."""
    flags = ("--http-port", "0", "--processes", "3", "--drain-seconds", "2.5", "--allow-empty", "--untrusted")
    code, (config, state, control, _) = run("serve", str(tmp_path), "--state", str(tmp_path / "s"), *flags)
    assert code == 0
    assert (config.http_port, config.grpc_port, config.processes) == (0, 8081, 3)
    assert (config.drain_seconds, config.allow_empty, config.repository_control) == (2.5, True, True)
    assert state == tmp_path / "s"
    settings = control.settings(1234)
    assert b'"port":1234' in settings
    assert b'"untrusted":true' in settings
    assert f'"folder":"{tmp_path}"'.encode() in settings


def test_flags_go_before_the_file_and_the_file_before_defaults(run, tmp_path):
    """turnout.yaml speaks where no flag does."""
    file = tmp_path / "turnout.yaml"
    file.write_text("folder: .\nprocesses: 4\nhttp_port: 9000\nlimits: {nesting: 7}\n")
    _, (config, *_) = run("serve", "--config", str(file), "--http-port", "0")
    assert (config.processes, config.http_port, config.limits.nesting, config.grpc_port) == (4, 0, 7, 8081)


def test_no_folder_is_fine_where_that_is_said(run):
    """`--allow-empty` stands for the folder."""
    code, (config, *_) = run("serve", "--allow-empty")
    assert (code, config.allow_empty) == (0, True)


@pytest.mark.parametrize(
    ("host", "allowed"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_callers_may_load_models_only_on_loopback_unless_it_is_said(run, tmp_path, host, allowed):
    """A port that others can reach does not let them change what is served; a flag does."""
    _, (config, *_) = run("serve", str(tmp_path), "--host", host)
    assert config.repository_control is allowed
    _, (config, *_) = run("serve", str(tmp_path), "--host", host, "--repository-control")
    assert config.repository_control is True


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("serve", "nowhere"), "turnout: cannot start: nowhere (FOLDER) is not a folder; name one that holds models\n"),
        (("serve", "--config", "none.yaml"), "turnout: cannot start: none.yaml (--config) cannot be read: "),
        (("serve", "--config", "odd.yaml"), "turnout: cannot start: odd.yaml:1: "),
        (
            ("control", "nowhere"),
            "turnout: cannot start: nowhere (FOLDER) is not a folder; name one that holds models\n",
        ),
        (("serve",), "turnout: name a FOLDER (or folder: in turnout.yaml), or --allow-empty\n"),
        (("serve", ""), "turnout: FOLDER is empty; name a path\n"),
        (("serve", "--state", ""), "turnout: --state is empty; name a path\n"),
        (("control", "--config="), "turnout: --config is empty; name a path\n"),
        (("serve", "--drain-seconds", "0"), "turnout: --drain-seconds 0: expected a number > 0.0\n"),
        (("serve", "--drain-seconds", "nan"), "turnout: --drain-seconds nan: expected a number > 0.0\n"),
        (("gateway", "--drain-seconds=86401"), "turnout: --drain-seconds 86401: expected a number <= 86400.0\n"),
        (("serve", "--processes", "257"), "turnout: --processes 257: expected a whole number <= 256\n"),
        (("control", "--control-port=x"), "turnout: --control-port x: expected a whole number, got text\n"),
        (("gateway", "--http-port=-1"), "turnout: --http-port -1: expected a whole number >= 0\n"),
        (("gateway", "--control", "control:8090"), "turnout: --control control:8090 is not a URL\n"),
    ],
)
def test_what_cannot_start_is_one_clear_line(run, tmp_path, monkeypatch, arguments, reason):
    """The line names the flag or the file with its line."""
    monkeypatch.chdir(tmp_path)
    Path("odd.yaml").write_text("htp_port: 1\n")
    code, said = run(*arguments)
    assert code == (2 if "cannot start" not in reason else 1)
    assert said.startswith(reason)
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box", ""])
def test_control_listens_on_loopback_only(run, host):
    """Without authentication nobody else may reach it; the refusal says why and what to do."""
    code, said = run("control", "--host", host)
    assert code == 2
    assert said.startswith(f"turnout: --host {host} is not loopback: control has no authentication")
    assert "tunnel" in said
    assert "network namespace" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_control_takes_any_address_of_loopback(monkeypatch, host):
    """Only this machine reaches those."""
    monkeypatch.setattr(control_command, "settings_of", _stop)
    with pytest.raises(_Stopped):
        control_command.control(host=host)


@pytest.mark.parametrize("command", ["serve", "gateway", "control"])
def test_two_adapters_of_one_runtime_are_told_at_the_start(run, tmp_path, monkeypatch, command):
    """Nothing starts where two installed packages offer one runtime; the line names both."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[turnout.adapters]\nonnx = other:Adapter\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, said = run(command)
    assert code == 1
    assert said == (
        "turnout: cannot start: runtime 'onnx' has two adapters: adapters.onnx_runtime:OnnxAdapter of turnout, "
        "and other:Adapter of other; uninstall one\n"
    )


def test_the_gateway_alone_follows_a_url(run):
    """Without a control plane of its own it is told where one is."""
    _, (config, _, control, _) = run("gateway", "--control", "http://control:8090", "--metrics-port", "0")
    assert control == "http://control:8090"
    assert config.metrics_port == 0
