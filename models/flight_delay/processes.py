"""Processes that the tour starts: each in a session of its own.

A Ctrl-C reaches the tour alone, and the tour ends them.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LINE_BYTES: Final = 1024 * 1024


@contextlib.asynccontextmanager
async def running(
    arguments: Sequence[str], *, log: Path, environment: Mapping[str, str], leave_s: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python ARGUMENTS` while the block runs, its stderr going to `log`.

    In the end it is asked to leave by SIGTERM; what is left of its session after `leave_s` seconds is killed.
    """
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            limit=LINE_BYTES,
        )
    try:
        yield process
    finally:
        # A second Ctrl-C must not leave processes behind; the wait below has an end.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            await _end(process, leave_s)
        finally:
            signal.signal(signal.SIGINT, before)


async def _end(process: asyncio.subprocess.Process, leave_s: float) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(leave_s):
                while await _line(process):
                    pass
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    return await process.stdout.readline() if process.stdout else b""


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    """Yield the lines of a process's stdout until it ends."""
    while line := await _line(process):
        yield line.decode(errors="replace").rstrip("\n")


def tail(log: Path, count: int = 20) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
