"""What the gRPC door holds for callers that dawdle: messages that do not come, answers that are not taken."""

import asyncio
import struct

import grpc
import numpy as np
import pytest

from bench.raw_calls import CANCELLED, PREFACE, frame, infer_grpc
from gateway.doors import grpc as grpc_door
from gateway.doors import grpc_core
from gateway.limits import Limits
from tests.contract.grpc_client import raw_request, serving
from tests.fake_backend import FakeBackend, echo
from tests.waiting import eventually_async
from turnout.core.tensor import Datatype, Tensor

HEAD = 9


def call(stream, message=b""):
    """Return the heading of a ModelInfer on a stream, and its message."""
    both = infer_grpc(message, 60_000)
    end = HEAD + int.from_bytes(both[:3], "big")
    return [part[:5] + stream.to_bytes(4, "big") + part[9:] for part in (both[:end], both[end:])]


@pytest.fixture
async def raw():
    """Open connections that speak frames; `window` is how much of an answer they take."""
    writers = []

    async def connect(client, window=65_535):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writers.append(writer)
        writer.write(PREFACE + frame(4, 0, struct.pack(">HI", 4, window)))
        reading = asyncio.ensure_future(reader.read(-1))
        reading.add_done_callback(lambda done: done.exception())
        return writer

    yield connect
    for writer in writers:
        writer.close()


async def test_a_caller_that_leaves_before_its_message_is_counted_as_that(raw):
    """It is no invalid request."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        writer = await raw(client)
        heading, _ = call(1)
        writer.write(heading)
        await writer.drain()
        writer.write(frame(3, 1, struct.pack(">I", CANCELLED)))
        await eventually_async(lambda: backend.refusals)
    assert [(route, error.code) for route, _, error in backend.refusals] == [("", "cancelled")]


async def test_a_caller_that_sends_no_message_is_refused(raw):
    """One that is still there made a mistake."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        writer = await raw(client)
        writer.write(call(1)[0] + frame(0, 1, b"", flags=1))
        await eventually_async(lambda: backend.refusals)
    assert [error.code for _, _, error in backend.refusals] == ["invalid_input"]


async def test_messages_that_do_not_come_do_not_keep_others_out(raw, monkeypatch):
    """So many are received at once; while others wait, those that take too long are given up, and told why."""
    monkeypatch.setattr(grpc_door, "_RECEIVING", 2)
    monkeypatch.setattr(grpc_core, "_HOGGING_S", 0.01)
    monkeypatch.setattr(grpc_core, "_SWEEP_S", 0.01)
    limits = Limits(held_bytes=1000, message_bytes=1000)
    backend = FakeBackend({"m": echo(Datatype.FP64)}, limits=limits)
    async with serving(backend, limits) as client:
        writer = await raw(client)
        writer.write(call(1)[0] + call(3)[0])
        await writer.drain()
        assert client.door._server is not None
        await eventually_async(lambda: len(client.door._server.awaited) == 2)
        answers = await asyncio.gather(*(client.infer(raw_request("m")) for _ in range(5)))
    assert {answer.code for answer in answers} == {grpc.StatusCode.OK}
    assert {error.code for _, _, error in backend.refusals} == {"overloaded"}


async def test_answers_that_nobody_takes_are_held(raw):
    """Their bytes count until they are taken, or the caller is gone."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    big = raw_request("m", {"x": Tensor.of(np.zeros(7_000))}).SerializeToString()
    async with serving(backend) as client:
        writer = await raw(client, window=0)
        heading, message = call(1, big)
        parts = [message[HEAD:][at : at + 16_384] for at in range(0, len(message) - HEAD, 16_384)]
        writer.write(heading + b"".join(frame(0, 1, part) for part in parts[:-1]) + frame(0, 1, parts[-1], flags=1))
        await eventually_async(lambda: backend.pressure.held_bytes > 50_000)
        assert backend.outcomes == ["ok"]
        writer.close()
        await eventually_async(lambda: backend.pressure.held_bytes == 0)
