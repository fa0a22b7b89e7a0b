"""Starts the real thing: `turnout serve` as an operator does, on free ports, and checks that nothing of it stays."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.launch import ANY_PORT
from bench.versions import write_onnx
from tests.processes import is_alive
from tests.running import Turnout
from tests.waiting import eventually


@contextlib.contextmanager
def _starter(place: Path) -> Iterator[Callable[..., Turnout]]:
    """Hand out a function that starts turnout commands in `place`; what still runs at the end is taken down."""
    started: list[Turnout] = []

    def start(*command: str, prefix: Sequence[str] = (), **environment: str) -> Turnout:
        started.append(Turnout(list(command), place, environment, prefix))
        return started[-1]

    yield start
    for one in started:
        below = one.children()
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGCONT)
            one.stop(60)
        eventually(lambda below=below: not [pid for pid in below if is_alive(pid)], 5, "all processes end")
        one.process.stdout.close()
        one.process.stderr.close()


def _serving(turnout: Callable[..., Turnout], place: Path) -> Callable[..., Turnout]:
    def start(folder: Path | None, *flags: str, prefix: Sequence[str] = (), **environment: str) -> Turnout:
        named = [str(folder)] if folder else []
        state = () if "--state" in flags else ("--state", str(place / "state"))
        drain = () if "--drain-seconds" in flags else ("--drain-seconds", "3")
        return turnout("serve", *named, *state, *drain, *ANY_PORT, *flags, prefix=prefix, **environment)

    return start


def _one_model(place: Path) -> Path:
    write_onnx(place / "models" / "one", 1.0)
    return place / "models"


@pytest.fixture
def turnout(tmp_path: Path) -> Iterator[Callable[..., Turnout]]:
    """Return a function that starts a turnout command."""
    with _starter(tmp_path) as start:
        yield start


@pytest.fixture
def serve(turnout: Callable[..., Turnout], tmp_path: Path) -> Callable[..., Turnout]:
    """Return a function that runs `turnout serve FOLDER` with free ports, its own STATE and further flags."""
    return _serving(turnout, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a FOLDER with one small ONNX model, `one`, that answers 1."""
    return _one_model(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turnout]:
    """Return a server with two processes and the model `one`, for the tests of a module that change nothing."""
    place = tmp_path_factory.mktemp("shared")
    with _starter(place) as start:
        yield _serving(start, place)(_one_model(place), "--processes", "2").ready()
