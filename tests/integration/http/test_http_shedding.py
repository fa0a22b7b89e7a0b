"""What the HTTP door does with requests for which there is no room: answered from their headings, bodies dropped."""

import asyncio

import pytest

from gateway.doors import http_codec
from gateway.limits import Limits
from tests.http_door import ROW, Door, infer, read_answer
from tests.waiting import eventually_async

LIMITS = Limits(linger_s=0.2, held_bytes=300_000)


@pytest.fixture(autouse=True, params=[True, False], ids=["lane", "asgi"])
def _way(request, monkeypatch):
    """Run every test over both ways that a prediction may take."""
    monkeypatch.setattr(Door, "lane", request.param)


@pytest.fixture
async def door(monkeypatch):
    """A door whose model `echo` has no room, and whose codec must not be asked."""

    def unread(*_):
        raise AssertionError("a body was read")

    monkeypatch.setattr(http_codec.InferForm, "read", unread)
    async with Door(LIMITS) as door:
        door.backend.crowd("echo")
        yield door


def is_shed(answer):
    """Tell whether an answer is that of a version without room."""
    status, headers, document = answer
    return (
        status == 429
        and headers["retry-after"] == "3"
        and headers["turnout-version"] == "echo@1"
        and headers["turnout-generation"] == "7"
        and document == {"error": "full"}
    )


async def test_a_request_without_room_is_answered_before_its_body_comes(door):
    """The heading is enough; the body is dropped when it comes, and the connection serves the next request."""
    request = infer("echo", ROW, "turnout-request-id: mine")
    heading, body = request[: -len(ROW)], ROW
    reader, writer = await door.send(heading)
    answer = await read_answer(reader)
    assert is_shed(answer)
    assert answer[1]["turnout-request-id"] == "mine"
    for piece in (body[:10], body[10:] + request, request):
        writer.write(piece)
        await writer.drain()
    assert [is_shed(await read_answer(reader)) for _ in range(2)] == [True, True]
    assert [(route, error.code) for route, _, error in door.backend.refusals] == [("echo", "overloaded")] * 3


async def test_pipelined_requests_are_shed_in_order(door, monkeypatch):
    """Behind a request that waits a shed one keeps its turn."""
    monkeypatch.undo()
    reader, _ = await door.send(infer("slow") + infer() + infer("slow"))
    await asyncio.wait_for(door.gate.reached.wait(), 10)
    door.gate.open.set()
    assert [(await read_answer(reader))[0] for _ in range(3)] == [200, 429, 200]


async def test_a_body_that_does_not_end_costs_its_connection(door):
    """The rest of a shed request is waited for, but not for long."""
    reader, _ = await door.send(infer()[:-10])
    assert is_shed(await read_answer(reader))
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_long_body_of_a_shed_request_is_dropped_as_it_comes(door):
    """Nothing of it is kept, and the refusal reaches a caller that writes on."""
    body = b" " * 1_000_000
    reader, writer = await door.connect()
    writer.write(infer("echo", body))
    assert is_shed(await read_answer(reader))
    await writer.drain()
    writer.write(infer())
    assert is_shed(await read_answer(reader))
    assert door.backend.pressure.held_bytes == 0


async def test_other_models_go_on(door, monkeypatch):
    """What is shed for one model is served for another, and for the same one once it has room again."""
    monkeypatch.undo()
    door.gate.open.set()
    reader, writer = await door.send(infer("slow"))
    assert (await read_answer(reader))[0] == 200
    door.backend.crowd()
    writer.write(infer())
    assert (await read_answer(reader))[0] == 200


async def test_bytes_of_waiting_requests_are_held_until_their_answer(door, monkeypatch):
    """A request that waits, whichever way it came, holds its body; its answer or its caller's leaving frees it."""
    monkeypatch.undo()
    pressure = door.backend.pressure
    connections = [await door.send(infer("slow")) for _ in range(3)]
    await eventually_async(lambda: pressure.held_bytes == 3 * len(ROW))
    connections[0][1].close()
    await eventually_async(lambda: pressure.held_bytes == 2 * len(ROW))
    door.gate.open.set()
    for reader, _ in connections[1:]:
        assert (await read_answer(reader))[0] == 200
    await eventually_async(lambda: pressure.held_bytes == 0)


async def test_no_big_body_begins_while_the_bytes_are_used_up(door, monkeypatch):
    """Its heading is refused; small requests are served on."""
    monkeypatch.undo()
    door.backend.crowd()
    door.backend.pressure.hold(LIMITS.held_bytes)
    reader, _ = await door.send(infer("echo", b" " * 100_000)[:-100_000])
    status, headers, document = await read_answer(reader)
    assert (status, headers["retry-after"]) == (429, "1")
    assert document["error"] == "300000 bytes of requests are held already"
    reader, _ = await door.send(infer())
    assert (await read_answer(reader))[0] == 200
