"""Control processes over a FOLDER of their own."""

from pathlib import Path

import pytest

from tests.control_plane import ControlProcess, write
from turnout.control.config import ControlConfig


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a FOLDER with versions 1 and 2 of model `m`, and a flat model `flat`."""
    for name in ("m/1/m.onnx", "m/2/m.onnx", "flat/flat.onnx"):
        write(tmp_path / "models" / name, name)
    return tmp_path / "models"


@pytest.fixture
def start(tmp_path, folder):
    """Return a starter of control processes over one STATE; all are ended afterwards."""
    started: list[ControlProcess] = []

    def start(**changes: object) -> ControlProcess:
        state = str(tmp_path / "state")
        settings = {"state": state, "folder": str(folder), "port": 0, "settle_s": 5.0, "quiet_s": 0.05}
        started.append(ControlProcess(ControlConfig(**settings | changes)))
        return started[-1]

    yield start
    for control in started:
        control.kill()
