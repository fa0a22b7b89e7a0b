"""Requests that wait for a model while their server leaves, by the lane and by ASGI alike."""

import asyncio

import pytest

from gateway.limits import Limits
from tests.http_door import Door, infer, read_answer


@pytest.fixture(autouse=True, params=[True, False], ids=["lane", "asgi"])
def _way(request, monkeypatch):
    """Run every test over both ways that a prediction may take."""
    monkeypatch.setattr(Door, "lane", request.param)


async def waiting(door):
    """Send a request that waits; return its connection, both ends."""
    reader, _ = await door.send(infer("slow"))
    await asyncio.wait_for(door.gate.reached.wait(), 10)
    (connection,) = door.server.server_state.connections
    return reader, connection


async def test_a_server_that_leaves_says_so_with_the_answer():
    """The answer that was waited for asks to go elsewhere, and ends its connection."""
    async with Door(Limits()) as door:
        reader, _ = await waiting(door)
        door.server.leave()
        door.gate.open.set()
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_connection_that_is_shut_down_has_its_answer_first():
    """Ended in uvicorn's own way, a connection waits for the answer, which says so."""
    async with Door(Limits()) as door:
        reader, connection = await waiting(door)
        connection.shutdown()
        door.gate.open.set()
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_connection_goes_on_after_an_answer_that_was_waited_for():
    """Quick and slow requests follow each other on one connection; counted once each."""
    async with Door(Limits()) as door:
        reader, writer = await door.connect()
        door.gate.open.set()
        for model in ("echo", "slow", "echo", "slow", "slow"):
            writer.write(infer(model))
            assert (await read_answer(reader))[0] == 200
        assert door.server.server_state.total_requests == 5
        assert door.backend.outcomes == ["ok"] * 5
        assert door.backend.pressure.held_bytes == 0


async def test_a_task_that_is_cancelled_leaves_no_connection_waiting():
    """A server out of time cancels what still runs: the caller is not left without an end."""
    async with Door(Limits()) as door:
        reader, _ = await waiting(door)
        for task in list(door.server.server_state.tasks):
            task.cancel()
        end = asyncio.wait_for(reader.read(), 10)
        try:
            assert b"200 OK" not in await end
        except ConnectionResetError:
            assert Door.lane
        assert door.backend.in_flight == 0
