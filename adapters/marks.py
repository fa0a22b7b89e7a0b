"""Marks of the calls that run a user's own code inside a gateway process, for whoever finds that process dead.

A mark is a small file below the scratch folder that outlives the process: how many calls of a version were under way.
It costs a call two stores into memory; a mark that cannot be made is done without.
"""

import logging
import mmap
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from adapters.interface import SyncModel
from turnout.core.tensor import TensorMap

_LOG: Final = logging.getLogger(__name__)
_FOLDER: Final = "running"
_EMPTY: Final = bytes(4)


class MarkedModel(SyncModel):
    """`model`, whose calls are marked while they run."""

    def __init__(self, model: SyncModel, name: str, scratch: Path) -> None:
        self.signature = model.signature
        self.properties = model.properties
        self.model = model
        self._lock = threading.Lock()
        self._running = 0
        self._mark = _open(_folder(scratch, os.getpid()) / quote(name, safe=""))

    def predict(self, inputs: TensorMap, outputs: Sequence[str]) -> TensorMap:
        """Run the model; raises what it raises."""
        self._add(1)
        try:
            return self.model.predict(inputs, outputs)
        finally:
            self._add(-1)

    def close(self) -> None:
        """Close the model; its mark goes with the process."""
        self.model.close()

    def _add(self, calls: int) -> None:
        with self._lock:
            self._running += calls
            self._mark[0] = min(self._running, 255)


def ran(scratch: Path, pid: int) -> list[str]:
    """Return the versions whose calls were under way when process `pid` died, and forget the process."""
    folder = _folder(scratch, pid)
    try:
        found = sorted(unquote(path.name) for path in folder.iterdir() if path.read_bytes()[:1] > b"\0")
    except OSError:
        return []  # it never ran such a model
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _folder(scratch: Path, pid: int) -> Path:
    return scratch / _FOLDER / str(pid)


def _open(path: Path) -> "mmap.mmap | bytearray":
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as file:
            file.write(_EMPTY)  # its block is there from now on: a store must never find the disk full
            file.flush()
            return mmap.mmap(file.fileno(), len(_EMPTY))
    except OSError as error:
        _LOG.warning("calls of %s are not marked: %s", unquote(path.name), error)
        return bytearray(_EMPTY)
