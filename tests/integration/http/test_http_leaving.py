"""Callers that leave while their request waits: whatever stands behind it, it is given up at once."""

import asyncio

import pytest

from gateway.limits import Limits
from tests.http_door import ROW, Door, infer
from tests.waiting import eventually_async

LIMITS = Limits()


@pytest.fixture(autouse=True, params=[True, False], ids=["lane", "asgi"])
def _way(request, monkeypatch):
    """Run every test over both ways that a prediction may take."""
    monkeypatch.setattr(Door, "lane", request.param)


@pytest.mark.parametrize("behind", ["", "slow", "echo", "half"])
async def test_a_caller_that_leaves_frees_its_place(behind):
    """Also behind pipelined requests, of which nothing is read, and with half a request sent after it."""
    following = {"": b"", "half": infer("echo")[:-20]}.get(behind) or infer(behind) * 3 if behind else b""
    async with Door(LIMITS) as door:
        _, writer = await door.send(infer("slow"))
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        writer.write(following)
        await writer.drain()
        (connection,) = door.server.server_state.connections
        await eventually_async(lambda: connection.flow.read_paused is bool(following and behind != "half"))
        writer.close()
        await eventually_async(lambda: door.backend.in_flight == 0)
        assert door.backend.outcomes[0] == "cancelled"
        assert door.backend.pressure.held_bytes == 0


async def test_a_caller_that_leaves_a_big_body_behind_frees_its_place():
    """The last part of a big body does not keep the connection from being read."""
    body = ROW[:-1] + b" " * 300_000 + b"}"
    async with Door(LIMITS) as door:
        _, writer = await door.send(infer("slow", body))
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        writer.close()
        await eventually_async(lambda: door.backend.in_flight == 0)
        assert door.backend.outcomes == ["cancelled"]
