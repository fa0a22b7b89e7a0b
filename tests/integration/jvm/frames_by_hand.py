"""A client of the worker protocol written from docs/worker-protocol.md alone, so that no fault of ours cancels out."""

import asyncio
import itertools
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turnout.core.tensor import Datatype, Tensor

HELLO, LOAD, LOADED, DESCRIBE, PREDICT, RESULT, ERROR, PING, PONG, CANCEL, DRAIN = range(1, 12)
NO_DEADLINE = 0xFFFFFFFF
NAMES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)
CODES = dict(enumerate(NAMES, start=1))
NUMBERS = {name: code for code, name in CODES.items()}
_HEADER = struct.Struct("<IBBHQII")


class Frame(NamedTuple):
    """A frame as received."""

    type: int
    id: int
    tensors: dict[str, Tensor]

    @property
    def code(self) -> str:
        """The code of an ERROR."""
        return text(self.tensors["code"])[0]

    @property
    def message(self) -> str:
        """The message of an ERROR."""
        return text(self.tensors["message"])[0]


def text(tensor: Tensor) -> list[str]:
    """Return the elements of a BYTES tensor as text."""
    return [element.decode() for element in tensor.array.reshape(-1)]


def table(tensor: Tensor) -> list[list[str]]:
    """Return a BYTES tensor of rank 2 as rows of text."""
    return [[cell.decode() for cell in row] for row in tensor.array]


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a payload."""
    parts = [struct.pack("<I", len(tensors))]
    for name, tensor in tensors.items():
        raw = bytes(tensor.raw())
        parts.append(struct.pack("<H", len(name.encode())) + name.encode())
        parts.append(struct.pack("<BB", NUMBERS[tensor.datatype], len(tensor.shape)))
        parts.append(struct.pack(f"<{len(tensor.shape)}q", *tensor.shape) + struct.pack("<Q", len(raw)) + raw)
    return b"".join(parts)


def decode_tensors(payload: bytes) -> dict[str, Tensor]:
    """Return the tensors of a payload."""
    tensors: dict[str, Tensor] = {}
    (count,) = struct.unpack_from("<I", payload)
    at = 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", payload, at)
        name = payload[at + 2 : at + 2 + length].decode()
        at += 2 + length
        code, rank = struct.unpack_from("<BB", payload, at)
        shape = struct.unpack_from(f"<{rank}q", payload, at + 2)
        (size,) = struct.unpack_from("<Q", payload, at + 2 + 8 * rank)
        at += 10 + 8 * rank
        tensors[name] = Tensor.from_raw(name, Datatype(CODES[code]), shape, payload[at : at + size])
        at += size
    assert at == len(payload)
    return tensors


def frame(kind: int, id_: int, payload: bytes = b"", *, deadline_ms: int = NO_DEADLINE, version: int = 1) -> bytes:
    """Return a whole frame."""
    return _HEADER.pack(len(payload), kind, version, 0, id_, deadline_ms, 0) + payload


class Client:
    """One connection. Answers are paired by id; the worker may send them in any order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._raw: dict[int, bytes] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, socket: Path, *, greet: bool = True) -> "Client":
        """Connect, and say HELLO unless `greet` is off."""
        client = cls(*await asyncio.open_unix_connection(socket))
        if greet:
            answer = await client.ask(HELLO, {"peer": Tensor.of(as_text(["test"]))})
            assert answer.type == HELLO
        return client

    def send(self, kind: int, tensors: Mapping[str, Tensor] | None = None, **header: Any) -> asyncio.Future[Frame]:
        """Send a frame; the future is its answer."""
        id_ = header.pop("id", None) or next(self._ids)
        payload = b"" if tensors is None else encode_tensors(tensors)
        future = self._waiting.setdefault(id_, asyncio.get_running_loop().create_future())
        self.send_bytes(frame(kind, id_, payload, **header))
        return future

    def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        self._writer.write(data)

    def expect(self, id_: int) -> asyncio.Future[Frame]:
        """Return the future answer with this id."""
        return self._waiting.setdefault(id_, asyncio.get_running_loop().create_future())

    async def ask(self, kind: int, tensors: Mapping[str, Tensor] | None = None, **header: Any) -> Frame:
        """Send a frame and wait for its answer."""
        return await asyncio.wait_for(self.send(kind, tensors, **header), 240)

    async def predict(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return the outputs; an ERROR raises AssertionError with its text."""
        answer = await self.ask(PREDICT, tensors)
        assert answer.type == RESULT, f"{answer.code}: {answer.message}"
        return answer.tensors

    async def exchange(self, sent: bytes) -> bytes:
        """Send the bytes of one frame and return those of its answer."""
        id_ = _HEADER.unpack_from(sent)[4]
        await asyncio.wait_for(self._sent(id_, sent), 30)
        return self._raw[id_]

    def _sent(self, id_: int, data: bytes) -> asyncio.Future[Frame]:
        future = self.expect(id_)
        self.send_bytes(data)
        return future

    async def closed(self) -> None:
        """Wait until the worker has closed the connection."""
        await asyncio.wait_for(asyncio.shield(self._task), 30)

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                header = await self._reader.readexactly(_HEADER.size)
                length, kind, version, _, id_, _, _ = _HEADER.unpack(header)
                payload = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                for future in self._waiting.values():
                    future.cancel("the worker has closed the connection")
                return
            assert version == 1
            future = self._waiting.pop(id_, None)
            assert future is not None, f"an answer to {id_}, which was not asked"
            self._raw[id_] = header + payload
            if not future.done():
                future.set_result(Frame(kind, id_, decode_tensors(payload)))


def as_text(rows: list[Any]) -> Any:
    """Return text as an array that `Tensor.of` takes."""
    return np.array(rows, dtype=object)
