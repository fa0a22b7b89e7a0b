"""Tells whether files have come to rest, so that a copy under way is never taken half. Looks; changes nothing."""

import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from turnout.core.clock import wall_s

QUIET_S: Final = 1.0
_MAX_FACTOR: Final = 5
_RECENT_S: Final = 60.0


class Seen(NamedTuple):
    """What tells one state of a file or folder from another; times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    is_folder: bool = False

    @classmethod
    def of(cls, path: Path) -> "Seen":
        """Look at `path`, following links. Raises OSError."""
        found = path.stat()
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, stat.S_ISDIR(found.st_mode))


def unsettled(
    seen: Mapping[Path, Seen], first_looked_s: float, *, quiet_s: float = QUIET_S, now_s: float | None = None
) -> str | None:
    """Say which path is still being written, or None.

    A path rests when it has not changed for `quiet_s` and nobody has it open for writing. It takes longer, up to five
    times `quiet_s`, when the latest three files came further apart: a slow copier's pace shows in what it has already
    written. A ctime in the future (another clock) counts from `first_looked_s`, wall time, instead.
    """
    now_s = wall_s() if now_s is None else now_s
    changed = {path: _changed_s(state, first_looked_s, now_s) for path, state in seen.items()}
    files_s = [at_s for path, at_s in changed.items() if not seen[path].is_folder]
    asked_s = min(_MAX_FACTOR * quiet_s, max(quiet_s, 2 * _pace_s(files_s, now_s)))
    for path, at_s in changed.items():
        if now_s - at_s < asked_s or (not seen[path].is_folder and is_written(path)):
            return str(path)
    return None


def is_written(path: Path) -> bool:
    """Tell whether somebody has the file open for writing; False where the system does not let us know."""
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A read lease is granted only while nobody writes. A writer that comes in this instant would have us sent a
        # signal, SIGIO by default, which ends a process; SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def _changed_s(state: Seen, first_looked_s: float, now_s: float) -> float:
    at_s = state.ctime_ns / 1e9
    return min(at_s, first_looked_s) if at_s > now_s else at_s


def _pace_s(files_s: Iterable[float], now_s: float) -> float:
    """Return the shorter of the last two gaps between changes of files: one gap alone may be that of an update."""
    recent = sorted(at_s for at_s in files_s if now_s - at_s < _RECENT_S)
    gaps = [late - early for early, late in pairwise(recent)]
    return min(gaps[-2:]) if len(gaps) > 1 else 0.0
