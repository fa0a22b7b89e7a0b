"""Connections to the HTTP door on real sockets: what is unreadable, endless, slow, pipelined or left."""

import asyncio
import json
import socket
import struct

import pytest

from gateway.limits import Limits
from tests.http_door import ROW, Door, infer, read_answer
from tests.waiting import eventually_async

LIMITS = Limits(header_bytes=4096, body_bytes=100_000, header_s=0.3, body_s=0.3, linger_s=0.3, write_s=0.3)
PATIENT = Limits(header_bytes=4096, body_bytes=100_000)


WAYS = {"asgi": (False, True), "lane": (True, True), "lane, then waiting": (True, False)}


@pytest.fixture(autouse=True, params=WAYS)
def _way(request, monkeypatch):
    """Run every test over each way that a prediction may take."""
    monkeypatch.setattr(Door, "lane", WAYS[request.param][0])
    monkeypatch.setattr(Door, "at_once", WAYS[request.param][1])


async def read_refusal(reader, status):
    """Read an error that ends its connection; return its text."""
    got, headers, document = await read_answer(reader)
    assert got == status
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert len(headers["turnout-request-id"]) == 32
    assert headers["turnout-generation"] == "7"
    assert await asyncio.wait_for(reader.read(), 10) == b""
    return document["error"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET // HTTP/9.9\r\n\r\n",
        b"GET /v2\r\n\r\n",
        b"GET /v2 HTTP/0.9\r\nhost: x\r\n\r\n",
        b"GET /v2 HTTP/2.0\r\nhost: x\r\n\r\n",
        b"CONNECT door:443 HTTP/1.1\r\nhost: door\r\n\r\n",
    ],
)
async def test_unreadable_requests_are_400_in_our_form(garbage):
    """No server's own plain text leaks through, and the refusal is recorded."""
    async with Door(PATIENT) as door:
        reader, _ = await door.send(garbage)
        assert await read_refusal(reader, 400) == "the request is no readable HTTP/1.1"
        assert [(route, error.code) for route, _, error in door.backend.refusals] == [("", "invalid_input")]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /v2 HTTP/1.1\r\nhost: x\r\nlong: " + b"a" * 5000 + b"\r\n\r\n"],
        [b"GET /v2 HTTP/1.1\r\nhost: x\r\nlong: ", b"a" * 3000, b"a" * 3000],
        [b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n"],
    ],
)
async def test_endless_headers_are_413(pieces):
    """Neither one long header, nor many, nor a long path is kept beyond the limit."""
    async with Door(PATIENT) as door:
        reader, _ = await door.send(*pieces)
        assert await read_refusal(reader, 413) == "request headers: are over the limit of 4096 bytes"


async def test_headers_that_do_not_come_are_not_waited_for():
    """A connection without a request is closed; half a heading is answered first."""
    async with Door(LIMITS) as door:
        silent, _ = await door.connect()
        slow, _ = await door.send(b"GET /v2 HTTP/1.1\r\nhos")
        assert await asyncio.wait_for(silent.read(), 10) == b""
        assert await read_refusal(slow, 504) == "the request's headers did not arrive in time"


async def test_a_body_that_does_not_come_is_not_waited_for():
    """The caller gets its answer, and the rest of the body no room for ever."""
    async with Door(LIMITS) as door:
        reader, _ = await door.send(infer()[:-10])
        status, _, document = await read_answer(reader)
        assert (status, document["error"]) == (504, "the request body did not arrive in time")
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_that_drips_in_is_not_waited_for_either():
    """However steadily its bytes come, a body has the same time; the refusal comes while they do."""
    body = ROW + b" " * 50_000
    async with Door(LIMITS) as door:
        reader, writer = await door.send(infer("echo", body)[: -len(body)])

        async def drip():
            for index in range(len(body)):
                writer.write(body[index : index + 1])
                await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        status, _, document = await read_answer(reader)
        assert not dripping.done()
        dripping.cancel()
    assert (status, document["error"]) == (504, "the request body did not arrive in time")


async def test_a_refused_body_is_read_off_so_that_the_refusal_is_seen():
    """413 comes before the body; who sends it all the same keeps the connection."""
    async with Door(PATIENT) as door:
        big = infer(body=b" " * 200_000)
        reader, writer = await door.send(big[:1000])
        status, _, document = await read_answer(reader)
        assert (status, document["error"]) == (413, "request body: is over the limit of 100000 bytes")
        writer.write(big[1000:] + infer())
        assert (await read_answer(reader))[0] == 200


async def test_whoever_never_ends_a_refused_body_is_cut_off():
    """After a while the rest of a refused body is not read any more."""
    async with Door(LIMITS) as door:
        reader, _ = await door.send(b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n")
        assert (await read_answer(reader))[0] == 413
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_chunked_bodies_are_read_and_broken_ones_refused():
    """A chunk whose size is no number is 400 in our form, and its request is not run."""
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with Door(PATIENT) as door:
        good, _ = await door.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(ROW), ROW))
        assert (await read_answer(good))[0] == 200
        packed, _ = await door.send(head.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n")
        assert await read_refusal(packed, 400) == "header transfer-encoding: only chunked is read here"
        door.backend.refusals.clear()
        broken, _ = await door.send(head + b'5\r\n{"inp\r\n', b"zz\r\n")
        assert await read_refusal(broken, 400) == "the request is no readable HTTP/1.1"
        await eventually_async(lambda: [error.code for _, _, error in door.backend.refusals] == ["cancelled"])
        assert len(door.backend.requests) == 1


async def test_what_stands_behind_a_body_changes_nothing():
    """Trailers are read and dropped, however the bytes are cut; too many of them are refused."""
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nturnout-request-id: mine\r\ntransfer-encoding: chunked"
    chunk = b"\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(ROW), ROW)
    async with Door(PATIENT) as door:
        for pieces in (
            [head + chunk, b"turnout-request-id: other\r\n\r\n"],
            [head + chunk + b"turnout-request-id: a\r\n\r\n"],
        ):
            reader, _ = await door.send(*pieces)
            status, headers, _ = await read_answer(reader)
            assert (status, headers["turnout-request-id"]) == (200, "mine")
        endless, _ = await door.send(head + chunk, b"a: b\r\n" * 1000)
        assert await read_refusal(endless, 413) == "request headers: are over the limit of 4096 bytes"


async def test_a_caller_that_leaves_frees_its_slot():
    """A lost connection cancels the prediction under way."""
    async with Door(PATIENT) as door:
        _, writer = await door.send(infer("slow"))
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        assert door.backend.in_flight == 1
        writer.close()
        await eventually_async(lambda: door.backend.outcomes == ["cancelled"])
        assert door.backend.in_flight == 0


async def test_callers_that_leave_amid_a_burst_leave_no_trace_in_the_log(caplog):
    """Whatever was under way or waited behind it ends, and nothing is logged as a failure."""
    async with Door(PATIENT) as door:
        for _ in range(20):
            reader, writer = await door.send(infer() * 60)
            await asyncio.wait_for(reader.read(10), 10)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing is a reset
            writer.transport.abort()
        await eventually_async(lambda: not door.server.server_state.tasks and not door.server.connections)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_quiet_connections_are_closed_after_a_while(monkeypatch):
    """Whoever says nothing more after an answer is let go; a request in between starts the time anew."""
    async with Door(PATIENT) as door:
        monkeypatch.setattr(door.server.config, "timeout_keep_alive", 0.2)
        reader, writer = await door.send(infer())
        assert (await read_answer(reader))[0] == 200
        writer.write(infer())
        assert (await read_answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_pipelined_requests_are_answered_in_order():
    """Several requests in one segment, the first slow: answers keep the order."""
    async with Door(PATIENT) as door:
        reader, _ = await door.send(infer("slow") + infer(body=ROW.replace(b"1.5", b"2.5")) + infer("nobody"))
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        door.gate.open.set()
        answers = [await read_answer(reader) for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 200, 404]
        assert [document["model_name"] for _, _, document in answers[:2]] == ["slow", "echo"]


@pytest.mark.parametrize("broken", [b"GARBAGE\r\n\r\n", infer()[:60] + b"\x00\r\n\r\n"])
async def test_garbage_behind_a_request_is_refused_in_its_turn(broken):
    """The answers of the requests before it come first, then the refusal, then the end."""
    async with Door(PATIENT) as door:
        reader, _ = await door.send(infer("slow") + infer() + broken)
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        assert await eventually_async(lambda: len(door.backend.refusals) == 1)
        door.gate.open.set()
        for model in ("slow", "echo"):
            status, _, document = await read_answer(reader)
            assert (status, document["model_name"]) == (200, model)
        assert await read_refusal(reader, 400) == "the request is no readable HTTP/1.1"


async def test_a_broken_pipelined_body_is_refused_in_its_turn():
    """A request that waits and turns out unreadable never runs; the one before it is answered."""
    chunked = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    async with Door(PATIENT) as door:
        reader, _ = await door.send(infer("slow") + chunked)
        await asyncio.wait_for(door.gate.reached.wait(), 10)
        door.gate.open.set()
        assert (await read_answer(reader))[0] == 200
        assert await read_refusal(reader, 400) == "the request is no readable HTTP/1.1"
        assert len(door.backend.requests) == 1


async def test_expected_continue_is_sent_only_for_bodies_that_are_read():
    """A body over the limit is refused without being asked for."""
    async with Door(PATIENT) as door:
        reader, writer = await door.send(infer("echo", ROW, "expect: 100-continue")[: -len(ROW)])
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(ROW)
        assert (await read_answer(reader))[0] == 200
        refused, _ = await door.send(infer("echo", b" " * 200_000, "expect: 100-continue")[:120])
        assert (await read_answer(refused))[0] == 413


async def test_an_answer_that_nobody_takes_is_dropped():
    """A caller that stops reading does not hold its answer for ever."""
    limits = Limits(write_s=0.3)
    async with Door(limits) as door:
        rows = 1_000_000
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [rows], "data": [0.5] * rows}]})
        reader, writer = await door.connect()
        reader._transport.pause_reading()
        for _ in range(3):
            writer.write(infer(body=body.encode()))
        await eventually_async(lambda: door.server.connections == 0, 20)


async def test_an_offer_to_upgrade_is_passed_over():
    """Java's client offers HTTP/2 on its first request and goes on in HTTP/1.1 when nobody takes it up."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA")
    first = infer("echo", ROW, *offer)
    async with Door(PATIENT) as door:
        for pieces in ([first], [first[:-30], first[-30:]], [first[: -len(ROW)], ROW], [first + first + infer()]):
            reader, writer = await door.send(*pieces)
            for _ in range(3 if len(pieces[0]) > len(first) else 1):
                assert (await read_answer(reader))[0] == 200
            writer.write(infer())
            assert (await read_answer(reader))[0] == 200
            writer.write(b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            assert (await read_answer(reader))[2]["name"] == "turnout"
            writer.write(infer())
            assert (await read_answer(reader))[0] == 200


async def test_the_servers_own_overload_is_in_our_form(monkeypatch):
    """Above uvicorn's limit of connections the answer is ours: 429, when to come back, recorded."""
    async with Door(PATIENT) as door:
        monkeypatch.setattr(door.server.config, "limit_concurrency", 1)
        reader, _ = await door.send(infer())
        status, headers, document = await read_answer(reader)
        assert (status, headers["retry-after"]) == (429, "1")
        assert document["error"].startswith("too many connections")
        assert [error.code for _, _, error in door.backend.refusals] == ["overloaded"]


async def test_connections_are_bounded():
    """One too many is told so and closed, and counted; when another has left there is room again."""
    async with Door(Limits(connections=2)) as door:
        first = await door.send(infer())
        second = await door.connect()
        assert (await read_answer(first[0]))[0] == 200
        reader, _ = await door.send(infer())
        assert await read_refusal(reader, 503) == "there are too many connections; come back later"
        assert [(route, error.code) for route, _, error in door.backend.refusals] == [("", "not_ready")]
        second[1].close()
        await eventually_async(lambda: door.server.connections == 1)
        third = await door.send(infer())
        assert (await read_answer(third[0]))[0] == 200
