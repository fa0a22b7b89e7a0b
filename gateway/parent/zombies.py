"""Reaps what others leave behind when the parent is the first process of a container.

asyncio waits for the children that the parent started. A zombie that is still there at the next look is nobody's.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 5.0


async def reap_orphans(every_s: float = _LOOK_EVERY_S) -> None:
    """Reap orphans until cancelled."""
    seen: set[int] = set()
    while True:
        zombies = await asyncio.to_thread(_zombies, os.getpid())
        for pid in zombies & seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it does not wait
        seen = zombies
        await asyncio.sleep(every_s)


def _zombies(parent: int) -> set[int]:
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The command's name stands in parentheses and may hold anything; state and parent follow the last one.
            state, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state == "Z" and int(owner) == parent:
            found.add(int(folder.name))
    return found
