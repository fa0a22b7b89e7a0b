"""Keeps an embedded control plane alive as a child. What it is told comes ready-made from the command line.

How it is started is written in `turnout/control/config.py`; the two planes share no code but `turnout.core`.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.parent import child
from gateway.parent.backoff import Backoff
from gateway.parent.failure import CannotStart
from turnout.core import clock

_log = logging.getLogger(__name__)

_MODULE: Final = "turnout.control.main"
_LISTENS_WITHIN_S: Final = 60.0
_STOPS_WITHIN_S: Final = 5.0


class _Ready(msgspec.Struct, frozen=True):
    """The line on the ready descriptor."""

    port: int


class ControlProcess:
    """The control child. `settings` makes its configuration for a port; a restart keeps the port of the first start."""

    def __init__(self, settings: Callable[[int], bytes], host: str, port: int, lock_fd: int) -> None:
        self.host = host
        self.port = port
        self._settings = settings
        self._lock_fd = lock_fd
        self._process: Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start control and wait until it listens.

        Raises CannotStart when it ends instead, having said why, and when no process can be started.
        """
        ready, theirs = os.pipe()
        try:
            self._process = await child.start(
                _MODULE,
                self._settings(self.port),
                (theirs, self._lock_fd),
                more=("--ready-fd", str(theirs)),
                watches_stdin=True,
            )
        except OSError as error:
            os.close(ready)
            raise CannotStart(child.cannot_run(error)) from error
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(theirs)
        text = await self._ready_line(ready)
        if not text:
            self.kill()
            status = await self._process.wait()
            raise CannotStart("" if status > 0 else f"control ended as it started (status {status})")
        self.port = msgspec.json.decode(text, type=_Ready).port

    async def keep(self) -> None:
        """Start control again whenever it ends, until cancelled."""
        backoff = Backoff()
        while self._process is not None:
            started_s = clock.monotonic_s()
            status = await self._process.wait()
            if self._stopping:
                return
            _log.error("control ended with status %d; the gateway serves on", status)
            await asyncio.sleep(backoff.after(clock.monotonic_s() - started_s))
            try:
                await self.start()
            except (CannotStart, OSError) as error:
                _log.error("control cannot be started again: %s", str(error) or "it says why above")

    async def stop(self) -> None:
        """End control: politely, then not."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        child.signal_child(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOPS_WITHIN_S)
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End control at once."""
        if self._process is not None:
            child.signal_child(self._process, signal.SIGKILL)

    async def _ready_line(self, descriptor: int) -> bytes:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        try:
            return await asyncio.wait_for(reader.readline(), _LISTENS_WITHIN_S)
        except TimeoutError:
            return b""
        finally:
            transport.close()
