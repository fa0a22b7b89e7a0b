"""One gateway process as the parent sees it: its messages, its heartbeat, its end. It decides nothing."""

import asyncio
import logging
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.parent import child
from gateway.parent.messages import (
    HEARTBEAT_S,
    MAX_LINE_BYTES,
    CannotObey,
    Commit,
    Drain,
    FromProcess,
    Leaves,
    Listening,
    Loads,
    Prepare,
    Report,
    SaysReady,
    ToProcess,
    from_process,
    line,
)
from turnout.core import clock

MISSED_S: Final = 5 * HEARTBEAT_S
# Until the first heartbeat the process imports engines and a busy machine may take its time.
_FIRST_HEARTBEAT_S: Final = 60.0
# Reading a big pickle holds the interpreter without a pause: killing the process for it would only begin it anew.
_LOADING_S: Final = 30.0
# Somebody who left the process's group may hold its socket open for ever.
_LAST_WORDS_S: Final = 1.0

_log = logging.getLogger(__name__)


class GatewayProcess:
    """A started gateway process. `on_message` hears all that it says; `wait` tells when it has exited.

    `opened` is set once its doors are open, `leaves` once it is to end in order; `killed_for` says why we ended it.
    """

    def __init__(
        self,
        slot: int,
        process: Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        on_message: "Callable[[GatewayProcess, FromProcess], None]",
    ) -> None:
        self.slot = slot
        self.pid = process.pid
        self.started_s = clock.monotonic_s()
        self.report: Report | None = None
        self.prepared: Prepare | None = None
        self.cannot: CannotObey | None = None
        self.refusals = 0
        self.loading: dict[str, str] = {}
        self.committed = 0
        self.opened = asyncio.Event()
        self.says_ready = False
        self.hung = False
        self.leaves = False
        self.killed_for = ""
        self._process = process
        self._on_message = on_message
        self._last_heard_s = self.started_s + _FIRST_HEARTBEAT_S - MISSED_S
        reader, self._writer = streams
        self._reading = asyncio.create_task(self._read(reader))
        self._end = asyncio.create_task(self._see_end())

    @classmethod
    async def start(
        cls,
        slot: int,
        settings: Callable[[int], bytes],
        passed: Sequence[int],
        on_message: "Callable[[GatewayProcess, FromProcess], None]",
    ) -> "GatewayProcess":
        """Exec a gateway process; `settings` makes its configuration, given the number of its control descriptor."""
        ours, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            process = await child.start("gateway.main", settings(fd), (fd, *passed), watches_stdin=False)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        streams = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        return cls(slot, process, streams, on_message)

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self._process.returncode is not None

    @property
    def listening(self) -> bool:
        """Whether its doors are open."""
        return self.opened.is_set()

    @property
    def in_service(self) -> bool:
        """Whether it has been told to serve a snapshot."""
        return self.committed > 0

    def send(self, message: ToProcess) -> None:
        """Send a message; a process that reads none of them is killed rather than waited for."""
        if isinstance(message, Prepare):
            self.prepared = message
            self.cannot = None
        elif isinstance(message, Commit):
            self.committed = message.generation
        elif isinstance(message, Drain):
            self.leaves = True
        if self._writer.is_closing():
            return
        self._writer.write(line(message))
        if self._writer.transport.get_write_buffer_size() > MAX_LINE_BYTES:
            self.kill("reads no messages")

    def check_heartbeat(self) -> None:
        """Kill the process when it has been silent for too long."""
        silent_s = clock.monotonic_s() - self._last_heard_s
        if silent_s > (_LOADING_S if self.loading else MISSED_S):
            self.hung = True
            self.kill(f"no heartbeat for {silent_s:.0f} s")

    def forgive_silence(self) -> None:
        """Count silence from now on: the parent itself was stopped."""
        self._last_heard_s = max(self._last_heard_s, clock.monotonic_s())

    def kill(self, reason: str) -> None:
        """End the process at once."""
        if self._process.returncode is None:
            _log.warning("gateway process %d: killed: %s", self.pid, reason)
            self.killed_for = reason
            child.signal_child(self._process, signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit status once the process has exited and its last messages are heard.

        What a model forked goes with it: it would hold our sockets open, and callers' connections with them.
        """
        return await asyncio.shield(self._end)

    async def _see_end(self) -> int:
        status = await self._process.wait()
        child.end_group(self._process)
        await asyncio.wait({self._reading}, timeout=_LAST_WORDS_S)
        self._reading.cancel()
        return status

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while text := await reader.readline():
                self._hear(from_process.decode(text))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self.kill(f"cannot be understood: {error}")
        finally:
            self._writer.close()

    def _hear(self, message: FromProcess) -> None:
        self._last_heard_s = clock.monotonic_s()
        if isinstance(message, Report):
            self.report = message
        elif isinstance(message, Loads):
            self.loading = message.versions
        elif isinstance(message, CannotObey):
            self.cannot = message
            self.refusals += 1
        elif isinstance(message, Listening):
            self.opened.set()
        elif isinstance(message, SaysReady):
            self.says_ready = True
        elif isinstance(message, Leaves):
            self.leaves = True
        self._on_message(self, message)
