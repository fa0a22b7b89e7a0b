"""`turnout.yaml`: every key reaches its place, the command line goes first, faults are named."""

import msgspec
import pytest

from gateway.config import GatewayConfig
from gateway.limits import Limits
from turnout.configuration import ControlKeys, LimitsKeys, Settings, read_settings, settled
from turnout.control.config import ControlConfig
from turnout.core.document import DocumentError


def write(tmp_path, text: str):
    """Return a turnout.yaml with this text."""
    path = tmp_path / "turnout.yaml"
    path.write_text(text)
    return path


def test_without_a_file_all_is_default():
    """The planes' own defaults are the file's."""
    settings = settled(None, {})
    assert settings.gateway(loopback=False) == GatewayConfig()
    assert settings.gateway(loopback=True) == GatewayConfig(repository_control=True)
    control = settings.control_plane()
    assert msgspec.structs.replace(control, state="") == ControlConfig(state="")


def test_the_keys_of_the_planes_are_all_there():
    """No bound or wait of theirs is out of the file's reach, and none is there twice."""
    assert set(LimitsKeys.__struct_fields__) == set(Limits.__struct_fields__)
    top = set(Settings.__struct_fields__)
    assert set(GatewayConfig.__struct_fields__) - top == set()
    told_apart = {"host", "port", "fresh"}
    assert set(ControlConfig.__struct_fields__) - top - set(ControlKeys.__struct_fields__) <= told_apart


def _bounds(struct):
    """Return the bounds of each number of a struct, and of those below it."""
    found = {}
    for field in msgspec.inspect.type_info(struct).fields:
        kind = field.type.type if isinstance(field.type, msgspec.inspect.Metadata) else field.type
        if isinstance(kind, msgspec.inspect.StructType):
            found |= _bounds(kind.cls)
        elif isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
            found[field.name] = (kind.ge, kind.gt, kind.le, kind.lt, kind.multiple_of)
    return found


def test_a_file_that_passes_is_taken_by_every_process():
    """Every number has, in the checked file, the bounds of the process that reads it: not wider, not narrower."""
    control = _bounds(ControlConfig)
    processes = _bounds(GatewayConfig) | control | {"control_port": control["port"]}
    del processes["port"]
    assert _bounds(Settings) == processes
    assert all(low is not None or above is not None for low, above, *_ in processes.values())
    assert all(high is not None for _, _, high, *_ in processes.values())


def test_flag_over_file_over_default(tmp_path):
    """What the command line says wins, what it does not say comes from the file, the rest is default."""
    path = write(tmp_path, "http_port: 1000\ngrpc_port: 2000\nlimits: {nesting: 7}\ncontrol: {watch_s: 0.5}")
    settings = settled(path, {"http_port": 3000})
    gateway = settings.gateway(loopback=True)
    assert (gateway.http_port, gateway.grpc_port, gateway.metrics_port) == (3000, 2000, 8082)
    assert gateway.limits == Limits(nesting=7)
    assert settings.control_plane().watch_s == 0.5


def test_paths_of_the_file_are_relative_to_it(tmp_path, monkeypatch):
    """Those of the command line are relative to where it was typed."""
    (tmp_path / "etc").mkdir()
    path = write(tmp_path / "etc", "folder: ../models\nstate: /var/lib/turnout")
    monkeypatch.chdir(tmp_path)
    settings = settled(path, {})
    assert settings.folder == str(tmp_path / "etc" / "../models")
    assert settings.state == "/var/lib/turnout"
    assert settled(path, {"folder": "here"}).control_plane().folder == str(tmp_path / "here")
    assert settled(write(tmp_path, ""), {}).state == "./.turnout"


@pytest.mark.parametrize(("said", "loopback", "wanted"), [
    (None, True, True), (None, False, False), (False, True, False), (True, False, True),
])  # fmt: skip
def test_repository_control_is_for_loopback_unless_said(said, loopback, wanted):
    """A machine that others reach lets nobody load and unload, unless it is told to."""
    assert settled(None, {"repository_control": said}).gateway(loopback=loopback).repository_control is wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http_prot: 1", "1: unknown key 'http_prot'; did you mean 'http_port'?"),
        ("limits:\n  body_byte: 1", "2: unknown key 'body_byte'; did you mean 'body_bytes'?"),
        ("http_port: 70000", "1: http_port: expected a whole number <= 65535"),
        ("drain_seconds: 0", "1: drain_seconds: expected a number > 0.0"),
        ("drain_seconds: 100000", "1: drain_seconds: expected a number <= 86400.0"),
        ("switch_interval_s: 100000", "1: switch_interval_s: expected a number <= 86400.0"),
        ("limits: {connection_calls: 2147483648}", "1: limits.connection_calls: expected a whole number <= 2147483647"),
        ("processes: many", "1: processes: expected a whole number, got text"),
        ("folder: ''", "1: folder: expected text of length >= 1"),
        ("http_port: 1\nstate: ''", "2: state: expected text of length >= 1"),
        ("- 1", "1: expected a mapping, got a list"),
        ("#" * ((1 << 20) + 1), "1: is over 1,048,576 bytes"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, text, reason):
    """Unknown keys with the nearest name, values out of range with the range."""
    path = write(tmp_path, text)
    with pytest.raises(DocumentError) as caught:
        read_settings(path)
    assert str(caught.value) == f"{path}:{reason}"


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """And one that is not there is the caller's OSError."""
    path = tmp_path / "turnout.yaml"
    path.write_bytes(b"\xff")
    with pytest.raises(DocumentError, match="is not UTF-8"):
        read_settings(path)
    with pytest.raises(FileNotFoundError):
        read_settings(tmp_path / "absent.yaml")
