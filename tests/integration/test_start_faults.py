"""docs/operations/start.md, held to the code: each fault of its tables is made, and `turnout serve` really started."""

import contextlib
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.launch import ANY_PORT
from bench.versions import write_onnx
from tests.docs.blocks import ROOT
from tests.integration.start_places import OTHER_USER, UNPRIVILEGED, on_tmpfs, some_java
from tests.running import Turnout

PAGE = (ROOT / "docs" / "operations" / "start.md").read_text()
ROW = re.compile(
    r"^\| (?P<fault>[^|`]+) \|(?: `(?P<state>\w+)` \|)? `(?P<said>[^`]+)` \|(?: (?P<exit>\d) \|)?$", re.MULTILINE
)
REFUSED = {row["fault"]: (row["said"], int(row["exit"])) for row in ROW.finditer(PAGE) if row["exit"]}
TABLED = {row["fault"]: (row["state"], row["said"]) for row in ROW.finditer(PAGE) if row["state"]}
NOT_READY = {row["fault"]: row["said"] for row in ROW.finditer(PAGE) if not row["exit"] and not row["state"]}


class Start(NamedTuple):
    """A command line and what goes before it."""

    flags: tuple[str, ...]
    prefix: tuple[str, ...] = ()
    command: tuple[str, ...] = ("serve",)


def _models(place: Path) -> str:
    write_onnx(place / "models" / "one", 1.0)
    return str(place / "models")


def _served(place: Path, *flags: str, prefix: tuple[str, ...] = (), state: Path | None = None) -> Start:
    return Start((_models(place), "--state", str(state or place / "state"), *ANY_PORT, *flags), prefix)


def _taken(flag: str) -> Callable[[Path, contextlib.ExitStack], Start]:
    def case(place: Path, stack: contextlib.ExitStack) -> Start:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return _served(place, flag, str(taken.getsockname()[1]))

    return case


def _configured(text: str) -> Callable[[Path, contextlib.ExitStack], Start]:
    def case(place: Path, _: contextlib.ExitStack) -> Start:
        (place / "turnout.yaml").write_text(text)
        return Start(("--config", str(place / "turnout.yaml")))

    return case


def _closed(folder: Path) -> Path:
    """Return a folder that this user, without root's privileges, may not enter."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    return folder


def _state_in_use(place: Path, stack: contextlib.ExitStack) -> Start:
    (place / "state").mkdir()
    lock = stack.enter_context((place / "state" / "lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(str(os.getpid()))
    lock.flush()
    return _served(place)


def _state_is_a_file(place: Path, _: contextlib.ExitStack) -> Start:
    (place / "state").touch()
    return _served(place)


def _damaged_records(place: Path, _: contextlib.ExitStack) -> Start:
    (place / "state" / "control").mkdir(parents=True)
    (place / "state" / "control" / "registry.db").write_bytes(b"no database " * 1000)
    return _served(place)


def _closed_folder(place: Path, _: contextlib.ExitStack) -> Start:
    start = _served(place, prefix=UNPRIVILEGED)
    _closed(place / "models")
    return start


CASES: dict[str, Callable[[Path, contextlib.ExitStack], Start]] = {
    "the HTTP port is taken": _taken("--http-port"),
    "the gRPC port is taken": _taken("--grpc-port"),
    "the metrics port is taken": _taken("--metrics-port"),
    "the control port is taken": _taken("--control-port"),
    "the host is none of this machine's": lambda place, _: _served(place, "--host", "192.0.2.1"),
    "the host has no address": lambda place, _: _served(place, "--host", "nowhere.invalid"),
    "STATE is on a full disk": lambda place, _: _served(place, prefix=on_tmpfs(place / "state", fill=True)),
    "STATE is read-only": lambda place, _: _served(place, prefix=on_tmpfs(place / "state", "ro")),
    "STATE is not this user's": lambda place, _: _served(place, prefix=UNPRIVILEGED, state=_closed(place / "state")),
    "STATE is a file": _state_is_a_file,
    "STATE is in use by another": _state_in_use,
    "the records in STATE are damaged": _damaged_records,
    "FOLDER is missing": lambda place, _: Start((str(place / "nowhere"),)),
    "FOLDER is not this user's": _closed_folder,
    "turnout.yaml has an unknown key": _configured("folder: .\nhttpport: 1\n"),
    "turnout.yaml has a wrong value": _configured("folder: .\nhttp_port: abc\n"),
    "turnout.yaml is not YAML": _configured("folder: [\n"),
    "turnout.yaml is missing": lambda place, _: Start(("--config", str(place / "none.yaml"))),
    "an option is unknown": lambda place, _: Start((str(place), "--http-prot", "1")),
    "an option has a wrong value": lambda place, _: Start((str(place), "--http-port", "99999")),
    "no FOLDER is named": lambda _place, _: Start(()),
    "no server answers turnout route list": lambda _place, _: Start(
        ("list", "--url", "http://127.0.0.1:9"), command=("route",)
    ),
}


def _run(place: Path, case: Callable[[Path, contextlib.ExitStack], Start]) -> subprocess.CompletedProcess[str]:
    with contextlib.ExitStack() as stack:
        start = case(place, stack)
        command = [*start.prefix, sys.executable, "-P", "-m", "turnout.cli.main", *start.command, *start.flags]
        return subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=100, check=False)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every fault of the first table, started side by side: a start is mostly imports."""
    places = {fault: tmp_path_factory.mktemp("start") for fault in CASES}
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(lambda fault: _run(places[fault], CASES[fault]), CASES), strict=True))


def _template(said: str) -> str:
    """Return the pattern of a message in which words in capitals stand for anything but an end of line."""
    known = {"FOLDER", "STATE", "YAML", "JVM", "JDK", "HTTP"}
    words = re.split(r"\b([A-Z]{3,})\b", said)
    return "".join(".+" if at % 2 and word not in known else re.escape(word) for at, word in enumerate(words))


def test_every_fault_of_the_page_has_a_case():
    """And every case its row."""
    assert REFUSED.keys() == CASES.keys()


@pytest.mark.parametrize("fault", sorted(CASES))
def test_a_start_that_is_refused_says_so_in_one_line(ended, fault):
    """The line is the page's, the status as well, and nothing stands on stdout."""
    said, status = REFUSED[fault]
    run = ended[fault]
    assert (run.returncode, run.stdout) == (status, ""), run.stderr
    assert re.fullmatch(_template(said) + r"\n", run.stderr), run.stderr


def _log_of(server: Turnout, last: str) -> str:
    server.logged(last)
    assert server.stop() == 0
    log = "".join(server.log)
    assert "Traceback" not in log
    return log


def test_what_cannot_be_served_is_told_and_the_rest_is_served(serve, folder, tmp_path):
    """A broken model, an unreadable one, one too large for a disk of 1 MiB, Java 11, a torn snapshot: all at once."""
    (folder / "broken").mkdir()
    (folder / "broken" / "model.onnx").write_bytes(b"no model")
    (folder / "large").mkdir()
    (folder / "large" / "model.onnx").write_bytes(os.urandom(3 << 20))
    write_onnx(folder / "secret", 1.0)
    (folder / "secret" / "model.onnx").chmod(0)
    _write_jar(folder / "jar")
    java = some_java(tmp_path / "jdk", 11)
    environment = ("env", f"JAVA_HOME={java}", f"PATH={tmp_path}")
    prefix = (*on_tmpfs(tmp_path / "state", torn="snapshot.json"), *UNPRIVILEGED, *environment)
    log = _log_of(serve(folder, prefix=prefix, COLUMNS="200"), "turnout ready")
    for fault in set(TABLED) - {"a JVM model, and no Java"}:
        state, said = TABLED[fault]
        assert re.search(rf"\b{state} +{_template(said)}", log), fault
    assert re.search(r"\bone +1 +onnx +ready", log)
    assert re.search(r"snapshot\.json is not used: .+; control's next snapshot replaces it", log)


def test_as_another_user_with_nothing_that_can_be_served_it_is_up_and_not_ready(serve, tmp_path):
    """Uid 10001, models of another user, every one broken, and no Java: said in the table and in one line."""
    _write_jar(tmp_path / "models" / "jar")
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "model.onnx").write_bytes(b"no model")
    prefix = (*on_tmpfs(tmp_path / "state"), *OTHER_USER, "env", f"PATH={tmp_path}", "JAVA_HOME=")
    server = serve(tmp_path / "models", prefix=prefix, COLUMNS="200")
    log = _log_of(server, NOT_READY["every model is broken"])
    state, said = TABLED["a JVM model, and no Java"]
    assert re.search(rf"\b{state} +{_template(said)}", log)


def test_routes_that_may_not_be_read_are_no_routes(serve, folder):
    """Nothing is routed by guess."""
    (folder / "routes.yaml").write_text("routes: {}\n")
    (folder / "routes.yaml").chmod(0)
    log = _log_of(serve(folder, prefix=UNPRIVILEGED), NOT_READY["routes.yaml may not be read"])
    assert "turnout ready" not in log


def _write_jar(folder: Path) -> None:
    """Write a JVM version of which nobody gets to see that it is none."""
    folder.mkdir(parents=True)
    (folder / "model.jar").write_bytes(b"PK")
    manifest = {"runtime": "jvm", "artifact": ".", "options": {"kind": "spi", "jars": ["model.jar"]}}
    (folder / "model.yaml").write_text(json.dumps(manifest))
