"""The guard itself: `guard_program.py MARK` waits for the end of its standard input, then kills all that carry MARK.

A byte before the end says that the parent ends in order, and has no child that is just being started.

Runs by its path in a bare interpreter, to be small: it imports nothing of ours and little of anybody's.
"""

import os
import signal
import sys
import time

# A process between fork and exec shows the parent's environment, without the mark: look again until none is left.
_LOOKS = 5
_LOOKS_IN_ORDER = 1
_BETWEEN_S = 0.1
_AT_MOST_S = 10.0


def carriers(mark: bytes) -> list[int]:
    """Return the living processes, but this one, whose environment holds `mark`."""
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208  pathlib would be most of this process
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123  as above
                if mark in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue  # it is gone, or somebody else's
    return found


def main() -> None:
    """Wait, then kill until nobody is found any more."""
    mark = os.fsencode(sys.argv[1])
    looks = _LOOKS
    while os.read(0, 4096):
        looks = _LOOKS_IN_ORDER
    ends_s = time.monotonic() + _AT_MOST_S
    quiet = 0
    while time.monotonic() < ends_s:
        found = carriers(mark)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        quiet = 0 if found else quiet + 1
        if quiet >= looks:
            return
        time.sleep(_BETWEEN_S)


if __name__ == "__main__":
    main()
