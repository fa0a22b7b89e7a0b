"""Which predicted classes have a series of their own, agreed by all gateway processes of a machine.

Each process alone would keep to 32 classes a version; together, and over restarts, only a shared list does.
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Final

CLASSES_PER_VERSION: Final = 32
OTHER: Final = "_other"
_FILE: Final = "classes.jsonl"
# It is asked on the request path: 2 ms in all is what a class may cost there, once.
_TRIES: Final = 20
_PAUSE_S: Final = 0.0001


class ClassLedger:
    """A locked file of (version, output, class). Asked at most once for each class that a process sees."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE

    def claim(self, version: str, output: str, name: str, share: int) -> frozenset[str]:
        """Enter class `name` unless the output has `share` classes already; return all classes of the output.

        Raises OSError where it cannot be entered: the disk is full, or somebody holds the lock for over 2 ms.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            lines = _whole_lines(descriptor)
            entries = [json.loads(line) for line in lines]
            known = {entry[2] for entry in entries if entry[:2] == [version, output]}
            if name not in known and len(known) < share:
                _append(descriptor, json.dumps([version, output, name]).encode() + b"\n")
                known.add(name)
            return frozenset(known)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock a file, which others hold for far less than a millisecond. Raises BlockingIOError after 2 ms."""
    for _ in range(_TRIES - 1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        else:
            return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _whole_lines(descriptor: int) -> list[bytes]:
    """Return the lines of a locked file, and cut off the piece of one that a full disk may have left."""
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.ftruncate(descriptor, whole)
    return data[:whole].splitlines()


def _append(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def shares(outputs: int) -> tuple[int, ...]:
    """Return how many classes each of a version's `outputs` may have, so that together they keep to the bound."""
    if outputs == 0:
        return ()
    each = max(CLASSES_PER_VERSION // outputs, 1)
    return tuple(each if index < CLASSES_PER_VERSION else 0 for index in range(outputs))
