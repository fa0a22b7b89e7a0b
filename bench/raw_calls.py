"""HTTP/1.1 and gRPC calls as prebuilt bytes on raw connections: as little work for a call as a client can have.

Reads of an answer only how it ended. Understands what this gateway sends to such clients, no more.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

Ended: TypeAlias = Callable[[Any, int, int], None]

NONE, OK, SHED, EXPIRED, OTHER = range(5)
# What was said by answers of no known kind.
ODD: Final[Counter[str]] = Counter()
_HTTP: Final = {b"200": OK, b"429": SHED, b"504": EXPIRED}
_GRPC: Final = {b"0": OK, b"8": SHED, b"4": EXPIRED}
_LENGTH: Final = b"content-length: "
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
# HTTP/2's code for a caller that wants no answer any more.
CANCELLED: Final = 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_FRAME_HEAD: Final = 9
_STREAMS: Final = 1000
_STATUS: Final = b"grpc-status"


def infer_http(route: str, body: bytes, *headers: str) -> bytes:
    """Return an HTTP request to predict."""
    lines = [f"POST /v2/models/{route}/infer HTTP/1.1", "host: bench", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def infer_grpc(message: bytes, timeout_ms: int) -> bytes:
    """Return a ModelInfer call for a stream that is numbered when it is sent."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "bench"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", f"{timeout_ms}m"),
    ]
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    data = b"\x00" + len(message).to_bytes(4, "big") + message
    return frame(_HEADERS, 0, block, _END_HEADERS) + frame(_DATA, 0, data, _END_STREAM)


def on_stream(call: bytes, stream: int) -> bytes:
    """Return a call of `infer_grpc` with the number of its stream."""
    end = _FRAME_HEAD + int.from_bytes(call[:3], "big")
    heading, data, name = call[:end], call[end:], stream.to_bytes(4, "big")
    return b"".join((heading[:5], name, heading[9:], data[:5], name, data[9:]))


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, ended: Ended) -> None:
        self.free = 1
        self.leaving = False
        self._ended = ended
        self._number = -1
        self._rest = b""
        self._transport: asyncio.Transport

    async def ready(self) -> None:
        """Be ready at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, number: int, request: bytes) -> None:
        """Send one request."""
        self.free = 0
        self._number = number
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Tell of a whole answer (asyncio's callback)."""
        if self._rest:
            data = self._rest + data
        head = data.find(b"\r\n\r\n")
        at = data.find(_LENGTH) + len(_LENGTH)
        if head < 0 or len(data) < head + 4 + int(data[at : data.index(b"\r", at)]):
            self._rest = data
            return
        self._rest = b""
        outcome = _HTTP.get(data[9:12], OTHER)
        ODD[data[9:12].decode()] += outcome == OTHER
        self._end(outcome)

    def connection_lost(self, _: Exception | None) -> None:
        """Tell of a request that got no answer (asyncio's callback)."""
        self.leaving = True
        if not self.free:
            ODD["connection lost"] += 1
            self._end(OTHER)

    def _end(self, outcome: int) -> None:
        self.free = 1
        self._ended(self, self._number, outcome)


class GrpcConnection(asyncio.Protocol):
    """One connection of many calls at once."""

    def __init__(self, ended: Ended) -> None:
        self.free = _STREAMS
        self.leaving = False
        self._ended = ended
        self._calls: dict[int, int] = {}
        self._stream = 1
        self._rest = b""
        self._window = 65_535
        self._began = asyncio.Event()
        self._held: list[tuple[int, bytes]] = []
        self._transport: asyncio.Transport

    async def ready(self) -> None:
        """Wait for the server's settings."""
        async with asyncio.timeout(10):
            await self._began.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet: no table of headers, as much room as there is (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HIHI", 1, 0, 4, 2**20)
        self._transport.write(PREFACE + frame(_SETTINGS, 0, settings) + frame(_WINDOW, 0, struct.pack(">I", 2**30)))

    def send(self, number: int, request: bytes) -> None:
        """Open a stream; one for which the server has no room yet waits."""
        self.free -= 1
        if self._held or self._window < len(request):
            self._held.append((number, request))
            return
        stream, self._stream = self._stream, self._stream + 2
        self._calls[stream] = number
        self._window -= len(request)
        self._transport.write(on_stream(request, stream))

    def data_received(self, data: bytes) -> None:
        """Read frames (asyncio's callback)."""
        data = self._rest + data
        at = 0
        while at + _FRAME_HEAD <= len(data):
            end = at + _FRAME_HEAD + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            self._take(data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end])
            at = end
        self._rest = data[at:]

    def connection_lost(self, _: Exception | None) -> None:
        """Tell of calls that got no answer (asyncio's callback)."""
        self.leaving = True
        calls, self._calls = self._calls, {}
        ODD["connection lost"] += len(calls)
        for number in calls.values():
            self._ended(self, number, OTHER)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, 0, b"", _ACK))
            self._began.set()
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, 0, payload, _ACK))
        elif kind == _WINDOW and stream == 0:
            self._window += int.from_bytes(payload, "big")
            held, self._held = self._held, []
            for number, request in held:
                self.free += 1
                self.send(number, request)
        elif kind == _HEADERS and flags & _END_STREAM:
            at = payload.find(_STATUS) + len(_STATUS)
            status = payload[at + 1 : at + 1 + payload[at]]
            self._end(stream, _GRPC.get(status, OTHER), f"status {status.decode()}")
        elif kind == _GO_AWAY:
            self.leaving = True
        elif kind == _RESET:
            self._end(stream, OTHER, f"reset {int.from_bytes(payload, 'big')}")

    def _end(self, stream: int, outcome: int, said: str) -> None:
        number = self._calls.pop(stream, None)
        if number is not None:
            ODD[said] += outcome == OTHER
            self.free += 1
            self._ended(self, number, outcome)


def frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    """Return an HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes((len(text),)) + text.encode()
