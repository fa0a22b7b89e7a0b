"""Which predicted classes have a series of their own, agreed by all gateway processes of a machine.

Each process alone would keep to 32 classes a version; together, and over restarts, only a shared list does.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Final

CLASSES_PER_VERSION: Final = 32
OTHER: Final = "_other"
_FILE: Final = "classes.jsonl"


class ClassLedger:
    """A locked file of (version, output, class). Asked at most once for each class that a process sees."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE

    def claim(self, version: str, output: str, name: str, share: int) -> frozenset[str]:
        """Enter class `name` unless the output has `share` classes already; return all classes of the output."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with open(descriptor, encoding="utf-8", closefd=False) as lines:
                entries = [json.loads(line) for line in lines if line.endswith("\n")]
            known = {entry[2] for entry in entries if entry[:2] == [version, output]}
            if name not in known and len(known) < share:
                os.write(descriptor, json.dumps([version, output, name]).encode() + b"\n")
                known.add(name)
            return frozenset(known)
        finally:
            os.close(descriptor)


def shares(outputs: int) -> tuple[int, ...]:
    """Return how many classes each of a version's `outputs` may have, so that together they keep to the bound."""
    if outputs == 0:
        return ()
    each = max(CLASSES_PER_VERSION // outputs, 1)
    return tuple(each if index < CLASSES_PER_VERSION else 0 for index in range(outputs))
