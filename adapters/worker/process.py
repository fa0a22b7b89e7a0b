"""A worker's operating-system process: its own group, a pipe that tells it when we are gone, its output in our log.

It must not speak the protocol.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from turnout.core.clock import monotonic_s

_LOG: Final = logging.getLogger(__name__)
LINES_A_SECOND: Final = 50
LINE_BYTES: Final = 2000
_TERM_S: Final = 2.0
_READ_BYTES: Final = 65536


class WorkerProcess:
    """A started process. `exited` ends with its return code; `last_line` is what it printed last."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        stdin: int,
        output: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self.name = name
        self.last_line = ""
        self.exited: asyncio.Task[int] = asyncio.create_task(process.wait())
        self._process = process
        self._stdin = stdin
        self._pipe = pipe
        self._forward: asyncio.Task[None] = asyncio.create_task(self._forward_output(output))

    @classmethod
    async def start(
        cls, name: str, argv: tuple[str, ...], environment: Mapping[str, str], cwd: Path
    ) -> "WorkerProcess":
        """Start `argv` in a session, and so a process group, of its own. Raises OSError."""
        # Pipes of our own: those of asyncio would keep `wait` from ending while a grandchild holds them open.
        stdin_read, stdin_write = os.pipe()
        output_read, output_write = os.pipe()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        output, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output_read, "rb", 0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin_read,
                stdout=output_write,
                stderr=output_write,
                env={**os.environ, **environment},
                cwd=cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(stdin_write)
            output.close()
            raise
        finally:
            os.close(stdin_read)
            os.close(output_write)
        return cls(name, process, stdin_write, reader, output)

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    def fate(self) -> str:
        """Say in words how it ended."""
        code = self.exited.result()
        how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exited with status {code}"
        return f"{how}; its last words: {self.last_line}" if self.last_line and code > 0 else how

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def exits_within(self, seconds: float) -> bool:
        """Wait for the end, at most `seconds`."""
        done, _ = await asyncio.wait({self.exited}, timeout=seconds)
        return bool(done)

    async def end(self, *, at_once: bool) -> None:
        """Make it end: SIGTERM and 2 s (unless `at_once`), then SIGKILL to its whole group; and give its pipes back."""
        if not at_once and not self.exited.done():
            self.signal_group(signal.SIGTERM)
            await self.exits_within(_TERM_S)
        self.signal_group(signal.SIGKILL)
        await asyncio.wait({self.exited})
        # What it printed is in the pipe by now; a grandchild that escaped its group may hold it open for ever.
        await asyncio.wait({self._forward}, timeout=0.2)
        self._forward.cancel()
        self._pipe.close()
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    async def _forward_output(self, output: asyncio.StreamReader) -> None:
        lines = _Lines(self.name)
        rest = b""
        while chunk := await output.read(_READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._take(lines, line)
            if len(rest) > LINE_BYTES:
                self._take(lines, rest)
                rest = b""
        if rest:
            self._take(lines, rest)
        lines.tell_dropped()

    def _take(self, lines: "_Lines", raw: bytes) -> None:
        line = raw[:LINE_BYTES].decode(errors="replace").rstrip()
        if line:
            self.last_line = line
            lines.log(line)


class _Lines:
    """Passes lines on to the log, at most so many a second, and says how many it dropped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._second = 0
        self._passed = 0
        self._dropped = 0

    def log(self, line: str) -> None:
        second = int(monotonic_s())
        if second != self._second:
            self.tell_dropped()
            self._second, self._passed = second, 0
        if self._passed < LINES_A_SECOND:
            self._passed += 1
            _LOG.info("worker %s: %s", self._name, line)
        else:
            self._dropped += 1

    def tell_dropped(self) -> None:
        if self._dropped:
            _LOG.warning("worker %s: %d lines dropped (over %d a second)", self._name, self._dropped, LINES_A_SECOND)
            self._dropped = 0
