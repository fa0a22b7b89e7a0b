"""Ends whatever a parent leaves behind: a small process beside it, which outlives it by a moment.

Children end by themselves when they see that their parent is gone. Those that cannot see it (stopped, or in a model's
code that never returns), what they started in their turn, and compilers amid a load are killed here. All of them are
known by a mark in their environment, which every process below the parent inherits.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final, Self

_MARK: Final = "TURNOUT_MACHINE"
_PROGRAM: Final = Path(__file__).with_name("guard_program.py")
_AGAIN_S: Final = 1.0
_ENDS_WITHIN_S: Final = 2.0


class Guard:
    """The guard of this parent: from `start` on every process that is started here carries the mark."""

    def __init__(self, mark: str, lock_fd: int) -> None:
        self._mark = mark
        self._lock_fd = lock_fd
        self._process: Process | None = None

    @classmethod
    async def start(cls, lock_fd: int) -> Self:
        """Start a guard; it inherits STATE/lock, so that the next parent starts once all is cleared. Raises OSError."""
        mark = secrets.token_hex(16)
        os.environ[_MARK] = mark
        guard = cls(mark, lock_fd)
        await guard._spawn()
        return guard

    async def keep(self) -> None:
        """Start another guard whenever one ends, until cancelled."""
        while True:
            if self._process is not None:
                await self._process.wait()
            await asyncio.sleep(_AGAIN_S)
            with contextlib.suppress(OSError):
                await self._spawn()

    async def close(self) -> None:
        """Have what is left ended, and the guard with it."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(b".")
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _ENDS_WITHIN_S)

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_PROGRAM), f"{_MARK}={self._mark}"),
            stdin=PIPE,
            stdout=DEVNULL,
            pass_fds=(self._lock_fd,),
            start_new_session=True,
        )
