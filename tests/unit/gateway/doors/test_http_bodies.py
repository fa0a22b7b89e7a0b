"""Bodies as they travel: encodings, limits, chunks, depth (FIELD 1.1, 4.2, 4.4; DESIGN 6, 8)."""

import asyncio
import gzip
import json
import threading
import zlib

import numpy as np
import pytest

from gateway import pressure as pressure_module
from gateway.doors import json_body
from gateway.doors.caller import Caller
from gateway.doors.http import HttpDoor
from gateway.doors.http_headers import Headers
from gateway.doors.request_body import BodyIntake
from gateway.limits import Limits
from gateway.pressure import Pressure
from tests.fake_backend import FakeBackend, echo
from tests.unit.gateway.doors.http_client import binary_body, binary_input, client, error_of, read_answer, sent
from turnout.core.errors import Overloaded
from turnout.core.tensor import Datatype, Tensor

INFER = "/v2/models/echo/infer"
ROW = json.dumps({"inputs": [sent("x", "FP64", [2], [1.5, 2.5])]}).encode()
BIG = Tensor.of(np.arange(40_000.0))


def big_row():
    """Return a JSON body that is read off the loop."""
    return json.dumps({"inputs": [sent("x", "FP64", [40_000], BIG.array.tolist())]}).encode()


@pytest.fixture
def backend():
    """A gateway that echoes FP64."""
    return FakeBackend({"echo": echo(Datatype.FP64)})


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(ROW)),
        ("GZIP", gzip.compress(ROW)),
        ("x-gzip", gzip.compress(ROW)),
        ("deflate", zlib.compress(ROW)),
        ("identity", ROW),
        ("", ROW),
    ],
)
async def test_packed_bodies_are_read(backend, encoding, packed):
    """Gzip and deflate cover the whole body."""
    answer = await client(backend).post(INFER, content=packed, headers={"content-encoding": encoding})
    assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]


async def test_the_header_length_is_that_of_the_unpacked_json(backend):
    """A packed binary body is split after unpacking."""
    entry, raw = binary_input("x", Tensor.of(np.array([3.5])))
    body, headers = binary_body({"inputs": [entry]}, raw)
    headers["content-encoding"] = "gzip"
    answer = await client(backend).post(INFER, content=gzip.compress(body), headers=headers)
    assert answer.json()["outputs"][0]["data"] == [3.5]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip, deflate", "compress"])
async def test_other_encodings_are_415_and_name_those_that_are_read(backend, encoding):
    """What no door reads is refused before the body is."""
    answer = await client(backend).post(INFER, content=ROW, headers={"content-encoding": encoding})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert error_of(answer).startswith(f"content-encoding '{encoding}' is not read here")


@pytest.mark.parametrize(
    ("encoding", "packed", "reason"),
    [
        ("gzip", ROW, "request body: is not gzip"),
        ("deflate", ROW, "request body: is not deflate"),
        ("gzip", gzip.compress(ROW)[:-9], "request body: the gzip stream ends too early"),
        ("gzip", b"", "request body: the gzip stream ends too early"),
        ("gzip", gzip.compress(ROW) + b"more", "request body: 4 bytes are left over after the gzip stream"),
        ("gzip", gzip.compress(ROW)[:-8] + bytes(8), "request body: is not gzip"),
    ],
)
async def test_broken_packed_bodies_are_400(backend, encoding, packed, reason):
    """A stream that is cut, damaged or followed by something is refused."""
    answer = await client(backend).post(INFER, content=packed, headers={"content-encoding": encoding})
    assert answer.status_code == 400
    assert error_of(answer).startswith(reason)


@pytest.mark.parametrize("pack", [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_bomb_is_refused_at_the_limit(backend, pack):
    """A small body that unpacks to a giant one is 413, and is never unpacked whole."""
    encoding, compress = pack
    bomb = compress(b" " * 50_000_000)
    calls = client(backend, Limits(unpacked_bytes=1_000_000))
    answer = await calls.post(INFER, content=bomb, headers={"content-encoding": encoding})
    assert answer.status_code == 413
    assert error_of(answer) == "request body: unpacks to more than the limit of 1000000 bytes"


async def test_answers_are_packed_only_for_those_who_ask(backend):
    """Accept-Encoding with gzip packs a big answer, binary ones too; the header length stays that of the JSON."""
    calls = client(backend)
    plain = await calls.post(INFER, content=big_row())
    assert "content-encoding" not in plain.headers
    packed = await calls.post(INFER, content=big_row(), headers={"accept-encoding": "deflate, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.json() == plain.json()
    refused = await calls.post(INFER, content=big_row(), headers={"accept-encoding": "gzip;q=0, br"})
    assert "content-encoding" not in refused.headers
    entry, raw = binary_input("x", BIG)
    body, headers = binary_body({"inputs": [entry], "parameters": {"binary_data_output": True}}, raw)
    binary = await calls.post(INFER, content=body, headers={**headers, "accept-encoding": "gzip"})
    assert binary.headers["content-encoding"] == "gzip"
    assert read_answer(binary)["y"].array.tolist() == BIG.array.tolist()


async def test_a_small_answer_is_not_worth_packing(backend):
    """Most clients offer gzip by default; one row goes out as it is."""
    answer = await client(backend).post(INFER, content=ROW, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


async def test_big_bodies_are_read_off_the_loop(backend, monkeypatch):
    """More than 64 KiB, and everything packed, is read on a thread; a small body at once."""
    readers = []
    read = json_body.read

    def watched(*args):
        readers.append(threading.current_thread() is threading.main_thread())
        return read(*args)

    monkeypatch.setattr(json_body, "read", watched)
    calls = client(backend)
    await calls.post(INFER, content=ROW)
    await calls.post(INFER, content=big_row())
    await calls.post(INFER, content=gzip.compress(ROW), headers={"content-encoding": "gzip"})
    assert readers == [True, False, False]


async def test_a_declared_length_over_the_limit_is_413_before_a_byte_is_read(backend):
    """The refusal does not wait for the body."""
    app = HttpDoor(backend, Limits(body_bytes=100), repository_control=False)
    answers = []

    async def receive():
        raise AssertionError

    async def send(message):
        answers.append(message)

    headers = [(b"content-length", b"101")]
    await app({"type": "http", "method": "POST", "path": INFER, "headers": headers}, receive, send)
    assert answers[0]["status"] == 413
    assert answers[1]["body"] == b'{"error":"request body: is over the limit of 100 bytes"}'
    assert [error.code for _, _, error in backend.refusals] == ["too_large"]


async def test_a_chunked_body_over_the_limit_is_413_while_it_arrives(backend):
    """Without a declared length the limit counts what came."""
    app = HttpDoor(backend, Limits(body_bytes=100), repository_control=False)
    received, answers = [], []

    async def receive():
        received.append(60)
        return {"type": "http.request", "body": b" " * 60, "more_body": True}

    async def send(message):
        answers.append(message)

    await app({"type": "http", "method": "POST", "path": INFER, "headers": []}, receive, send)
    assert answers[0]["status"] == 413
    assert sum(received) == 120


async def test_a_body_of_exactly_the_limit_is_read(backend):
    """The limit itself is allowed."""
    assert (await client(backend, Limits(body_bytes=len(ROW))).post(INFER, content=ROW)).status_code == 200


async def test_chunks_are_put_together(backend):
    """A body in pieces is the same body."""

    async def pieces():
        for at in range(0, len(ROW), 7):
            yield ROW[at : at + 7]

    answer = await client(backend).post(INFER, content=pieces())
    assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]


def receiving(*messages):
    """Return ASGI's `receive` with these messages, an event that tells that they are used up, and a queue for more."""
    coming, waits, rest = list(messages), asyncio.Event(), asyncio.Queue()

    async def receive():
        if coming:
            return coming.pop(0)
        waits.set()
        return await rest.get()

    return receive, waits, rest


HALF = {"type": "http.request", "body": b"x" * 60, "more_body": True}
END = {"type": "http.request", "body": b"y"}


def taking(pressure):
    """Return a function that takes a body of unknown length under this pressure."""
    task = asyncio.current_task()
    assert task is not None
    intake = BodyIntake(Limits(held_bytes=100), pressure)

    async def take(receive, read=bytes):
        holding = intake.holding()
        try:
            return await intake.take(receive, Headers({}), Caller(task), read, holding)
        finally:
            holding.release()

    return take, intake


async def test_all_bodies_are_bounded_together():
    """While all room is used up new bodies are shed, those under way are read on once there is room again."""
    pressure = Pressure(Limits(held_bytes=100))
    take, intake = taking(pressure)
    first, first_waits, rest = receiving(HALF)
    second, second_waits, _ = receiving(HALF, END)
    tasks = [asyncio.create_task(take(first)), asyncio.create_task(take(second, len))]
    await first_waits.wait()
    assert pressure.held_bytes == 120
    with pytest.raises(Overloaded, match="120 bytes of requests are held"):
        await take(receiving(HALF)[0])
    assert not second_waits.is_set()
    rest.put_nowait(END)
    assert await asyncio.gather(*tasks) == [b"x" * 60 + b"y", 61]
    assert pressure.held_bytes == 0
    intake.close()


async def test_bodies_that_hold_up_each_other_do_not_for_ever(monkeypatch):
    """Where all room is taken by bodies that are not whole, those that wait too long for room are shed."""
    monkeypatch.setattr(pressure_module, "PAUSE_S", 0.01)
    pressure = Pressure(Limits(held_bytes=100))
    take, intake = taking(pressure)
    ends = await asyncio.gather(*(take(receiving(HALF, HALF, END)[0]) for _ in range(2)), return_exceptions=True)
    assert any(isinstance(end, Overloaded) for end in ends)
    assert pressure.held_bytes == 0
    intake.close()


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"inputs":[],"x":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
        b"[" * 100_000,
        b'{"inputs":[],"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
async def test_nesting_beyond_the_limit_is_400(backend, text):
    """A hundred levels are the limit, also in fields that nobody reads."""
    answer = await client(backend).post(INFER, content=text)
    assert answer.status_code == 400
    assert error_of(answer) == "request body: JSON is nested deeper than 100"


async def test_many_rows_and_brackets_in_text_are_no_depth(backend):
    """Only what is open at once counts."""
    rows = {"inputs": [sent("x", "FP64", [300, 1], [[1.0]] * 300)], "id": "[" * 500 + '\\"' + "{" * 500}
    assert (await client(backend).post(INFER, json=rows)).status_code == 200


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"", 0),
        (b"1", 0),
        (b"[]", 1),
        (b'{"a":[{}]}', 3),
        (b'["[[[["]', 1),
        (rb'["\"[[[["]', 1),
        (rb'["\\",[[]]]', 3),
        (b'["unterminated [[[', 1),
        (b"]]]][[", 0),
    ],
)
def test_depth_ignores_what_strings_hold(text, depth):
    """Brackets inside strings, escaped quotes and escaped backslashes do not mislead it."""
    assert json_body.depth(text) == depth


def test_depth_takes_linear_time_on_hostile_text():
    """Neither quotes nor backslashes without end make it slow: this would take hours otherwise."""
    for text in (b'["' + rb"\"" * 1_000_000, b'"' * 1_000_001 + b"[", b"\\" * 2_000_001 + b'"['):
        assert json_body.depth(text) in (0, 1)
