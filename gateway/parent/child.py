"""Starts a Python child of the parent: exec, never fork; settings on an inherited file, never in its arguments.

A child ends with its parent: one that watches its standard input sees end of file there, a gateway process on its
socket. Children inherit STATE/lock, so that the next parent starts only once the last orphan is gone.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import Final

_CONFIG_FLAG: Final = "--config-fd"
# glibc gives each of the many threads of engines and of grpcio an arena, and each grows to its own peak: with two a
# process grows less over time (bench/campaign/memory.py).
_FEW_ARENAS: Final = {"MALLOC_ARENA_MAX": "2"}
# Requests run beside each other: a call that spreads over all cores waits, spinning, for its own threads.
_ONE_THREAD_A_CALL: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


async def start(
    module: str, settings: bytes, passed: Sequence[int], *, more: Sequence[str] = (), watches_stdin: bool
) -> Process:
    """Start `python -m module --config-fd N` and `more`; it inherits the descriptors `passed` under their numbers.

    Its standard output joins our standard error: the parent's own output is the ready line alone. It leads a session
    of its own, so that a terminal's Ctrl-C reaches the parent only.
    """
    with tempfile.TemporaryFile() as file:
        file.write(settings)
        file.flush()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            module,
            _CONFIG_FLAG,
            str(file.fileno()),
            *more,
            stdin=PIPE if watches_stdin else DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=(file.fileno(), *passed),
            start_new_session=True,
            # grpcio writes to stderr by itself, past every log, when a listener of ours is taken out of service.
            env={"GRPC_VERBOSITY": "NONE", **_FEW_ARENAS, **_ONE_THREAD_A_CALL, **os.environ},
        )


def cannot_run(error: OSError) -> str:
    """Say why no child can be started, and what helps."""
    remedy = f"; user {os.geteuid()} must be able to run it" if isinstance(error, PermissionError) else ""
    return f"no process can be started with {sys.executable}: {error.strerror or error}{remedy}"


def signal_child(process: Process, number: signal.Signals) -> None:
    """Signal a child that has not been waited for; one that is gone already is no matter.

    asyncio's own `kill` looks first whether the child has ended, and so takes the exit status away from `wait`.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def end_group(process: Process) -> None:
    """End what a child that has exited left behind in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def read_settings(arguments: Sequence[str]) -> bytes:
    """Return, in a child, the settings that `start` handed over. Raises ValueError when `arguments` name none."""
    if len(arguments) != 2 or arguments[0] != _CONFIG_FLAG:
        raise ValueError(f"started by its parent only: {_CONFIG_FLAG} N")
    with os.fdopen(int(arguments[1]), "rb") as file:
        file.seek(0)
        return file.read()
