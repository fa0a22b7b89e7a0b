"""Big bodies are kept once: what arrives in parts is neither joined nor copied (long: bench/campaign/big_bodies)."""

import asyncio
import json
import tracemalloc

import numpy as np
import pytest

from gateway.doors.caller import Caller
from gateway.doors.http_codec import InferForm
from gateway.doors.http_headers import Headers
from gateway.doors.request_body import BodyIntake
from gateway.limits import Limits
from gateway.pressure import Pressure
from turnout.core.tensor import Datatype

PART = 64 * 1024
ELEMENTS = 1 << 18


def _parts(body):
    """Return the messages in which a body arrives; each part is made when it is asked for, as from a socket."""
    ends = range(0, len(body), PART)
    return iter({"type": "http.request", "body": body[at : at + PART], "more_body": at != ends[-1]} for at in ends)


async def _taken(body, *headers):
    """Return what a body is read to, and the memory that took, in times of the body."""
    limits = Limits()
    intake = BodyIntake(limits, Pressure(limits))
    sent = Headers({b"content-length": b"%d" % len(body), **dict(headers)})
    holding = intake.holding()
    parts = _parts(body)

    async def receive():
        return next(parts)

    caller = Caller(asyncio.current_task())
    tracemalloc.start()
    try:
        read = await intake.take(receive, sent, caller, lambda data: InferForm(limits).read(data, sent, ()), holding)
        return read, tracemalloc.get_traced_memory()[1] / len(body)
    finally:
        tracemalloc.stop()
        holding.release()
        intake.close()


@pytest.mark.parametrize("more", range(8))
async def test_a_binary_tensor_is_a_view_of_what_was_received(more):
    """Wherever its JSON ends the tensor is aligned, and no model can write into it."""
    raw = np.arange(ELEMENTS, dtype=np.float64)
    tensor = {"name": "x", "datatype": "FP64", "shape": [ELEMENTS], "parameters": {"binary_data_size": raw.nbytes}}
    head = json.dumps({"inputs": [tensor]}).encode() + b" " * more
    read, times = await _taken(head + raw.tobytes(), (b"inference-header-content-length", b"%d" % len(head)))
    array = read.inputs["x"].array
    assert np.array_equal(array, raw)
    assert array.flags.aligned
    assert not array.flags.writeable
    assert times < 1.3


@pytest.mark.parametrize("shape", [[ELEMENTS // 4], [ELEMENTS // 64, 16]])
async def test_numbers_in_json_are_read_beside_their_text(shape):
    """The text once, the array once, and little more, flat or nested."""
    numbers = np.random.default_rng(1).random(shape)
    tensor = {"name": "x", "datatype": "FP64", "shape": shape, "data": numbers.tolist()}
    read, times = await _taken(json.dumps({"inputs": [tensor]}, indent=1).encode())
    assert read.inputs["x"].datatype is Datatype.FP64
    assert np.array_equal(read.inputs["x"].array, numbers)
    assert times < 4


async def test_bodies_of_a_few_parts_are_read_at_once():
    """No thread is asked for them."""
    body = json.dumps({"inputs": [{"name": "x", "datatype": "INT8", "shape": [2], "data": [1, 2]}]}).encode()
    read, _ = await asyncio.wait_for(_taken(body), 5)
    assert read.inputs["x"].array.tolist() == [1, 2]
