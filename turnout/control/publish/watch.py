"""Watches one small file by looking at it again and again: its content and what the file system says of it.

So writes in place, renames over it and swapped links (Kubernetes' `..data`) are all seen. It does not parse.
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from turnout.control.publish.settle import is_written
from turnout.core.clock import monotonic_s

MAX_BYTES: Final = 1 << 20


class Look(NamedTuple):
    """A file at one moment: `data` is None when it is not there. `problem` says why it could not be read."""

    data: bytes | None
    problem: str = ""
    state: tuple[int, ...] = ()

    @property
    def is_blank(self) -> bool:
        """Whether there is a file with nothing in it."""
        return self.data is not None and not self.data.strip()


def look(path: Path) -> Look:
    """Look at a file, following links. A pipe, whose writer may never come, is not waited for."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Look(None, "is no regular file")
            data = file.read(MAX_BYTES + 1)
        found = path.stat()
    except FileNotFoundError:
        return Look(None, "is a link that leads nowhere" if path.is_symlink() else "")
    except OSError as error:
        return Look(None, f"cannot be read: {error.strerror}")
    state = (found.st_dev, found.st_ino, found.st_mtime_ns)
    if len(data) > MAX_BYTES:
        return Look(None, f"is over {MAX_BYTES:,} bytes", state)
    return Look(data, "", state)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


class Watch:
    """A file that is looked at every `every_s`. A change counts when two looks agree and nobody has it open to write.

    A writer that keeps it open is waited for at most `settle_s` after its last change.
    """

    def __init__(self, path: Path, every_s: float, settle_s: float) -> None:
        self._path = path
        self._every_s = every_s
        self._settle_s = settle_s
        self._taken: Look | None = None

    async def next(self) -> Look:
        """Wait for the next change; the first time, for a first settled look."""
        before, since_s = None, monotonic_s()
        while True:
            # Asked before the look: a writer that is gone by then has nothing left to write that the look would miss.
            written = await asyncio.to_thread(is_written, self._path)
            now = await asyncio.to_thread(look, self._path)
            if now == self._taken:
                before = None
            elif now != before:
                before, since_s = now, monotonic_s()
            elif not written or monotonic_s() - since_s >= self._settle_s:
                self._taken = now
                return now
            await asyncio.sleep(self._every_s)
