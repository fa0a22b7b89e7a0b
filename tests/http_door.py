"""The HTTP door on a real socket over a gateway in memory, and a client that writes and reads bytes."""

import asyncio
import json
import socket
from typing import Any, Final, Self, TypeAlias

from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import protocol_for
from gateway.http_server import HttpServer
from gateway.limits import Limits
from tests.fake_backend import FakeBackend, Gate, echo
from turnout.core.tensor import Datatype

Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ROW: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1.5]}]}'


class Door:
    """A running door and its gateway in memory."""

    lane = True
    at_once = True

    def __init__(self, limits: Limits) -> None:
        self.gate = Gate()
        models = {"echo": echo(Datatype.FP64), "slow": self.gate.model()}
        self.backend = FakeBackend(models, at_once=self.at_once, limits=limits)
        app = HttpDoor(self.backend, limits, repository_control=False)
        self.server = HttpServer(app, protocol_for(app, self.backend, limits, lane=self.lane))
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        await self.server.open(listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.open.set()
        for writer in self._writers:
            writer.close()
        await self.server.stop(5)

    async def connect(self) -> Connection:
        """Open a connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def send(self, *pieces: bytes) -> Connection:
        """Open a connection, send, and return it."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return reader, writer


def infer(model: str = "echo", body: bytes = ROW, *headers: str) -> bytes:
    """Return the bytes of an infer request."""
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: door", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Read one answer: status, headers, JSON."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    status_line, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 10)
    return int(status_line.split()[1]), headers, json.loads(body)
