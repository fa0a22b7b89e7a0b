"""Throws inputs at a running gateway's doors, and says of each what came back that must not."""

import asyncio
import collections
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import grpc
import msgspec

from bench import echoes, versions
from bench.client import HttpClient
from bench.fuzz import grpc_inputs, http_inputs
from bench.launch import Gateway
from turnout.core.tensor import Datatype

ANSWER_S: Final = 20.0
_AT_ONCE: Final = 64
_EOF_AFTER_S: Final = 0.05
_KEPT: Final = 10
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
# What a caller's mistake must never be called: it says that the server is at fault.
_OUR_FAULT: Final = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Thrown(msgspec.Struct):
    """What was thrown at a door, by outcome; `wrong` are inputs that got what they must not."""

    inputs: int = 0
    outcomes: collections.Counter[str] = msgspec.field(default_factory=collections.Counter)
    wrong: list[str] = []

    def note(self, outcome: str, sent: bytes, *, wrong: bool) -> None:
        """Count an outcome."""
        self.inputs += 1
        self.outcomes[outcome] += 1
        if wrong and len(self.wrong) < _KEPT:
            self.wrong.append(f"{outcome}: {sent!r}")


def write_models(folder: Path) -> None:
    """Write what inputs ask for: numbers and texts."""
    versions.write_onnx(folder / "one", 1.0)
    echoes.write_onnx(folder / "text", Datatype.BYTES)


async def throw_http(gateway: Gateway, random: Random, count: int) -> Thrown:
    """Throw `count` inputs at the HTTP door, each on a connection of its own."""
    host, _, port = gateway.http.rpartition(":")
    thrown = Thrown()

    async def throw(data: bytes) -> None:
        answer = await converse(host, int(port), data)
        if answer is None:
            thrown.note("no end", data, wrong=True)
            return
        statuses = [int(status) for status in _STATUS.findall(answer)]
        outcome = str(statuses[0]) if statuses else "closed"
        thrown.note(outcome, data, wrong=any(status >= 500 for status in statuses) or (bool(answer) and not statuses))

    await _at_once(throw, (http_inputs.http_input(random) for _ in range(count)))
    return thrown


async def throw_http2(gateway: Gateway, random: Random, count: int) -> Thrown:
    """Throw `count` connections of raw HTTP/2 at the gRPC door; only that they end is judged here."""
    host, _, port = gateway.grpc.rpartition(":")
    thrown = Thrown()

    async def throw(data: bytes) -> None:
        answer = await converse(host, int(port), data)
        thrown.note("no end" if answer is None else "ended", data, wrong=answer is None)

    await _at_once(throw, (grpc_inputs.http2(random) for _ in range(count)))
    return thrown


async def throw_messages(gateway: Gateway, random: Random, count: int) -> Thrown:
    """Throw `count` messages at the methods of the gRPC door."""
    thrown = Thrown()
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        calls = {name: channel.unary_unary(grpc_inputs.SERVICE + name) for name in grpc_inputs.METHODS}

        async def throw(asked: tuple[str, bytes]) -> None:
            method, data = asked
            try:
                await calls[method.rpartition("/")[2]](data, timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                wrong = error.code() in _OUR_FAULT or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                thrown.note(error.code().name, data, wrong=wrong)
            else:
                thrown.note("OK", data, wrong=False)

        await _at_once(throw, (grpc_inputs.message(random) for _ in range(count)))
    return thrown


async def is_healthy(gateway: Gateway) -> bool:
    """Tell whether a right request gets the right answer."""
    async with HttpClient(gateway.http, 1) as client:
        answer = await client.call("POST", "/v2/models/one/infer", msgspec.json.encode(http_inputs.ROW))
    return answer.status == 200 and answer.json()["outputs"][0]["data"] == [1.0]


def tracebacks(gateway: Gateway) -> list[str]:
    """Return the lines of the log that begin a traceback, with what follows."""
    found = [at for at, line in enumerate(gateway.log) if "Traceback" in line]
    return ["".join(gateway.log[at : at + 40]) for at in found[:3]]


async def _at_once(
    throw: Callable[[object], Awaitable[None]] | Callable[..., Awaitable[None]], inputs: Iterator[object]
) -> None:
    async def work() -> None:
        for data in inputs:
            await throw(data)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


async def converse(host: str, port: int, data: bytes) -> bytes | None:
    """Send, say after a moment that no more comes, and read to the end; None when that does not come in time.

    Who says at once that no more comes has left, as far as the door is concerned.
    """
    try:
        async with asyncio.timeout(ANSWER_S), _connected(host, port) as (reader, writer):
            writer.write(data)
            rest = asyncio.ensure_future(_rest(reader))
            await asyncio.wait({rest}, timeout=_EOF_AFTER_S)
            if not rest.done():
                writer.write_eof()
            return await rest
    except TimeoutError:
        return None
    except OSError:
        return b""  # it hung up on us while we were talking


async def _rest(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    try:
        while piece := await reader.read(65536):
            pieces.append(piece)
    except OSError:
        pass  # a reset after the answer
    return b"".join(pieces)


@asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def rounds(count: int, each: int) -> Iterator[int]:
    """Split `count` into rounds of at most `each`."""
    return (
        min(each, count - done) for done in itertools.takewhile(lambda done: done < count, itertools.count(0, each))
    )
