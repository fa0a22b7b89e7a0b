"""A gateway process's line to its parent. When it breaks, the parent is gone and so is this process, at once."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.parent.messages import HEARTBEAT_S, MAX_LINE_BYTES, FromProcess, Heartbeat, ToProcess, line, to_process

_SENT_WITHIN_S: Final = 1.0


class ParentLink:
    """Sends without waiting; `listen` hears until the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, descriptor: int) -> "ParentLink":
        """Take over the inherited socket."""
        sock = socket.socket(fileno=descriptor)
        return cls(*await asyncio.open_connection(sock=sock, limit=MAX_LINE_BYTES))

    def send(self, message: FromProcess) -> None:
        """Send a message; it never waits."""
        self._writer.write(line(message))

    async def close(self) -> None:
        """Send what waits and close; `listen` must have been ended before, since it takes this for the parent's end."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _SENT_WITHIN_S)
        self._writer.transport.abort()

    async def beat(self) -> None:
        """Tell the parent, each second, that this loop turns; a parent that does not read gets no more of it."""
        while True:
            if self._writer.transport.get_write_buffer_size() == 0:
                self.send(Heartbeat())
            await asyncio.sleep(HEARTBEAT_S)

    async def listen(self, hear: Callable[[ToProcess], Awaitable[None]]) -> None:
        """Hand each message on, in order; exit the process when the parent is gone."""
        try:
            while text := await self._reader.readline():
                await hear(to_process.decode(text))
        except ConnectionError:
            pass
        # Nobody is left to answer for: no drain, no clean-up that could hang.
        os._exit(1)
