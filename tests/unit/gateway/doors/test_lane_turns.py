"""Turns of the prediction lane: what came together is answered together, and nobody suffers from a neighbour."""

import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import _AT_ONCE, protocol_for
from gateway.limits import Limits
from tests.http_conversations import ROW, Wire, gateway

REQUEST = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(ROW), ROW)


@pytest.fixture
async def connect():
    """Return a function that opens a connection to one door: its protocol and its wire."""
    backend = gateway(at_once=True)
    door = HttpDoor(backend, Limits(), repository_control=False)
    protocol_class = protocol_for(door, backend, Limits())
    settings = uvicorn.Config(door, http=protocol_class, ws="none", lifespan="off", log_config=None)
    settings.load()
    state = ServerState()
    open_ones = []

    def opened():
        protocol, wire = protocol_class(config=settings, server_state=state, app_state={}), Wire()
        protocol.connection_made(wire)
        open_ones.append(protocol)
        return protocol, wire

    yield opened
    for protocol in open_ones:
        protocol.connection_lost(None)


async def turn():
    """Let the loop turn once."""
    await asyncio.sleep(0)


async def test_what_came_in_one_turn_is_answered_in_the_next(connect):
    """Nothing is written while the loop still reads; then each connection has its own answer."""
    connections = [connect() for _ in range(3)]
    for protocol, _ in connections:
        protocol.data_received(REQUEST)
    assert [wire.written for _, wire in connections] == [b""] * 3
    await turn()
    assert all(wire.written.startswith(b"HTTP/1.1 200 ") for _, wire in connections)
    assert all(wire.written.count(b"HTTP/1.1") == 1 for _, wire in connections)


async def test_a_turn_has_its_measure(connect):
    """More than a turn takes wait for the next: the first answers go out before the last are begun."""
    connections = [connect() for _ in range(_AT_ONCE + 2)]
    for protocol, _ in connections:
        protocol.data_received(REQUEST)
    await turn()
    assert [bool(wire.written) for _, wire in connections] == [True] * _AT_ONCE + [False] * 2
    await turn()
    assert all(wire.written for _, wire in connections)


async def test_who_ends_right_behind_the_request_is_answered(connect):
    """A caller may close its half of the connection with the request: the answer is written before that is heard."""
    protocol, wire = connect()
    protocol.data_received(REQUEST)
    protocol.eof_received()
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    await turn()
    assert wire.written.count(b"HTTP/1.1") == 1


async def test_pieces_that_follow_within_the_turn_belong_to_it(connect):
    """Two requests that come in two pieces before the turn are answered both, in order."""
    protocol, wire = connect()
    protocol.data_received(REQUEST)
    protocol.data_received(REQUEST)
    for _ in range(6):
        await turn()
    assert wire.written.count(b"HTTP/1.1 200 ") == 2


async def test_no_url_without_end_is_remembered(connect):
    """What stands where a URL should end, and does not, is no key of what the lane knows."""
    protocol, _ = connect()
    protocol.data_received(b"POST /v2/models/" + b"a" * 100_000)
    known = protocol.lane.target
    assert known.cache_info().currsize == 1
    known(b"")
    assert known.cache_info().currsize == 1


async def test_a_connection_that_fails_takes_nobody_along(connect, monkeypatch, caplog):
    """It is cut off and said; those behind it have their answers."""
    (broken, cut), (other, wire) = connect(), connect()

    def fail():
        raise RuntimeError("broken")

    monkeypatch.setattr(broken, "take_turn", fail)
    broken.data_received(REQUEST)
    other.data_received(REQUEST)
    await turn()
    assert cut.closed
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert "a connection failed" in caplog.text


async def test_an_answer_that_cannot_be_sent_takes_none_along(connect, monkeypatch, caplog):
    """The connection is cut off and said; the answers behind it go out, and the next turn comes."""
    (broken, cut), (other, wire) = connect(), connect()

    def fail(_):
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(cut, "write", fail)
    broken.data_received(REQUEST)
    other.data_received(REQUEST)
    await turn()
    assert cut.closed
    assert "an answer could not be sent" in caplog.text
    other.data_received(REQUEST)
    await turn()
    assert wire.written.count(b"HTTP/1.1 200 ") == 2
