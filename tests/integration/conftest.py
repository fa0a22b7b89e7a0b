"""Starts the real thing: `turnout serve` as an operator does, on free ports, and checks that nothing of it stays."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.versions import write_onnx
from tests.running import Turnout, serving, starter


def _one_model(place: Path) -> Path:
    write_onnx(place / "models" / "one", 1.0)
    return place / "models"


@pytest.fixture
def turnout(tmp_path: Path) -> Iterator[Callable[..., Turnout]]:
    """Return a function that starts a turnout command."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def serve(turnout: Callable[..., Turnout], tmp_path: Path) -> Callable[..., Turnout]:
    """Return a function that runs `turnout serve FOLDER` with free ports, its own STATE and further flags."""
    return serving(turnout, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a FOLDER with one small ONNX model, `one`, that answers 1."""
    return _one_model(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turnout]:
    """Return a server with two processes and the model `one`, for the tests of a module that change nothing."""
    place = tmp_path_factory.mktemp("shared")
    with starter(place) as start:
        yield serving(start, place)(_one_model(place), "--processes", "2").ready()
