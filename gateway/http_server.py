"""Runs one ASGI callable on uvicorn over a socket that is already bound, inside a loop that somebody else owns.

uvicorn takes no signals here, and in leaving cuts no idle connection: answers carry `connection: close` instead,
and what is still idle when the drain ends is closed then (DESIGN 1).
"""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final

import uvicorn

from gateway.caller_sockets import keep_alive
from turnout.core.clock import Deadline

# Longer than clients keep idle connections in their pools: a server that closes first races their next request.
_KEEP_ALIVE_S: Final = 120
_LOOK_S: Final = 0.02
_CUT_S: Final = 0.5
# Among the default headers of a server that leaves.
CONNECTION_CLOSE: Final = (b"connection", b"close")


class HttpServer(uvicorn.Server):
    """A uvicorn server that its owner starts, leaves and stops; with `lifespan` the app hears of start and end."""

    def __init__(
        self, app: Any, protocol: type[asyncio.Protocol] | str = "httptools", *, lifespan: bool = False
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        super().__init__(config)
        self._ticking: asyncio.Task[None] | None = None
        self._listener: socket.socket

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the owner of the process."""
        yield

    async def open(self, sock: socket.socket) -> None:
        """Accept connections on a listening socket."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.lifespan.startup()
        self._listener = sock
        keep_alive(sock)
        # The loop's server closes its own copy: what is in the queue by then is still ours to take.
        listening = await asyncio.get_running_loop().create_server(
            self._protocol, sock=sock.dup(), backlog=self.config.backlog
        )
        self.servers = [listening]
        self.started = True
        self._ticking = asyncio.create_task(self.main_loop())

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.server_state.connections)

    def leave(self) -> None:
        """Ask every connection that still speaks to go elsewhere; accept and answer until `stop`."""
        self.config.encoded_headers.append(CONNECTION_CLOSE)
        self.server_state.default_headers.append(CONNECTION_CLOSE)

    async def stop(self, within_s: float) -> None:
        """Accept nothing more, wait `within_s` for connections to end, then close those that have nothing to say."""
        await self.close_port()
        end = Deadline.after(within_s)
        while self.connections and not end.passed:  # noqa: ASYNC110  no event tells
            await asyncio.sleep(_LOOK_S)
        self.should_exit = True
        if self._ticking is not None:
            await self._ticking
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.shutdown(), _CUT_S)

    async def close_port(self) -> None:
        """Accept nothing more, without losing a caller who is connected already and waits to be accepted."""
        if self._listener.fileno() < 0:
            return
        for server in self.servers:
            server.close()
        accepted: list[socket.socket] = []
        with contextlib.suppress(OSError):
            self._listener.setblocking(False)
            while True:
                accepted.append(self._listener.accept()[0])
        self._listener.close()
        loop = asyncio.get_running_loop()
        for sock in accepted:
            await loop.connect_accepted_socket(self._protocol, sock)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
