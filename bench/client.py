"""Lean asyncio clients for checks: pooled keep-alive HTTP/1.1 and raw gRPC messages. They never retry."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import msgspec

from turnout.core.wire import inference_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"


class Answer(msgspec.Struct):
    """Status (HTTP, or the gRPC code's number), headers in lower case, and the body or message bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the JSON body."""
        return msgspec.json.decode(self.body)


class HttpClient:
    """Up to `connections` keep-alive connections to one server."""

    def __init__(self, address: str, connections: int) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(connections):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> Self:
        """Open nothing yet: connections open when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is idle."""
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            if connection:
                connection[1].close()

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, within_s: float = 60
    ) -> Answer:
        """Send one request and return its answer. Raises OSError or TimeoutError when there is none."""
        connection = await self._idle.get()
        keep = None
        try:
            async with asyncio.timeout(within_s):
                if connection is None:
                    connection = await asyncio.open_connection(self._host, self._port)
                reader, writer = connection
                lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
                head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
                writer.write(head.encode() + body)
                answer = await _read_answer(reader)
            if answer.headers.get("connection") == "close":
                writer.close()
            else:
                keep = connection
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server closed the connection before its answer") from error
        finally:
            if keep is None and connection is not None:
                connection[1].close()
            self._idle.put_nowait(keep)
        return answer

    async def infer(
        self, name: str, body: bytes, headers: Mapping[str, str] | None = None, within_s: float = 60
    ) -> Answer:
        """Post a predict request to a route, or to `NAME/versions/V`."""
        return await self.call("POST", f"/v2/models/{name}/infer", body, headers, within_s)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split(" ", 2)[1]), headers, body)


class GrpcClient:
    """Raw ModelInfer calls over `channels` connections of their own."""

    def __init__(self, address: str, channels: int = 1) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(channels)]
        self._calls = [channel.unary_unary(INFER) for channel in self._channels]
        self._next = 0

    async def __aenter__(self) -> Self:
        """Connect lazily."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every channel."""
        for channel in self._channels:
            await channel.close()

    async def infer(self, message: bytes, metadata: Mapping[str, str] | None = None, within_s: float = 60) -> Answer:
        """Send one serialised ModelInferRequest; status is the gRPC code, headers are the initial metadata."""
        self._next = (self._next + 1) % len(self._calls)
        call = self._calls[self._next](message, timeout=within_s, metadata=tuple((metadata or {}).items()))
        try:
            body = await call
        except grpc.aio.AioRpcError as error:
            headers = {str(k): str(v) for k, v in (error.initial_metadata() or ())}
            return Answer(error.code().value[0], headers, (error.details() or "").encode())
        return Answer(0, {str(k): str(v) for k, v in await call.initial_metadata()}, body)


async def settled(door: HttpClient, within_s: float = 900) -> list[dict[str, str]]:
    """Return the repository index once nothing loads any more. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            index: list[dict[str, str]] = (await door.call("POST", "/v2/repository/index")).json()
            if all(entry["state"] != "LOADING" for entry in index):
                return index
            await asyncio.sleep(0.5)


def infer_message(name: str, tensors: Mapping[str, tuple[str, list[int], bytes]], version: str = "") -> bytes:
    """Return a serialised ModelInferRequest with raw contents: tensor name to (datatype, shape, raw bytes)."""
    request = inference_pb2.ModelInferRequest(model_name=name, model_version=version)
    for tensor, (datatype, shape, raw) in tensors.items():
        entry = request.inputs.add(name=tensor, datatype=datatype)
        entry.shape.extend(shape)
        request.raw_input_contents.append(raw)
    return request.SerializeToString()


def decode_answer(body: bytes) -> inference_pb2.ModelInferResponse:
    """Return a ModelInferResponse from its bytes."""
    return inference_pb2.ModelInferResponse.FromString(body)
