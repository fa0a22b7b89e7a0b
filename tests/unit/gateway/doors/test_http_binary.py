"""Binary tensors over HTTP: behind the JSON, mixed with it, or one raw tensor alone (FIELD 4.4)."""

import json
import struct

import numpy as np
import pytest

from tests.fake_backend import FakeBackend, echo, simple
from tests.unit.gateway.doors.http_client import (
    TENSORS,
    binary_body,
    binary_input,
    client,
    error_of,
    read_answer,
    sent,
)
from turnout.core.tensor import Datatype, Tensor, equal_bits

INFER = "/v2/models/{}/infer"


@pytest.fixture
def backend():
    """A gateway that echoes every datatype under its name."""
    return FakeBackend({str(datatype): echo(datatype) for datatype in Datatype} | {"simple": simple()})


@pytest.mark.parametrize("datatype", list(Datatype))
async def test_every_datatype_comes_back_bit_for_bit_in_binary(backend, datatype):
    """Binary in, binary out, for all fourteen datatypes."""
    entry, raw = binary_input("x", TENSORS[datatype])
    body, headers = binary_body({"inputs": [entry], "parameters": {"binary_data_output": True}}, raw)
    answer = await client(backend).post(INFER.format(datatype), content=body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert equal_bits(read_answer(answer)["y"], TENSORS[datatype])


async def test_binary_numbers_are_views_of_the_received_bytes(backend):
    """No copy is made of a tensor that starts at an even address."""
    entry, raw = binary_input("x", Tensor.of(np.arange(1000.0)))
    document = {"inputs": [entry], "id": ""}
    document["id"] = "x" * (-len(json.dumps(document)) % 8)
    body, headers = binary_body(document, raw)
    await client(backend).post(INFER.format("FP64"), content=body, headers=headers)
    array = backend.requests[0].inputs["x"].array
    assert not array.flags.owndata
    assert not array.flags.writeable


@pytest.mark.parametrize("padding", range(8))
async def test_numbers_handed_on_are_aligned(backend, padding):
    """Wherever the JSON ends, native runtimes get aligned numbers."""
    entry, raw = binary_input("x", Tensor.of(np.arange(20_000.0)))
    body, headers = binary_body({"inputs": [entry], "id": "i" * padding}, raw)
    answer = await client(backend).post(INFER.format("FP64"), content=body, headers=headers)
    assert answer.status_code == 200
    assert backend.requests[0].inputs["x"].array.flags.aligned


async def test_json_and_binary_inputs_mix_in_order(backend):
    """Raw bytes follow in input order; inputs with data have none."""
    left = Tensor.of(np.arange(16, dtype=np.int32).reshape(1, 16))
    entry, raw = binary_input("INPUT1", left)
    document = {
        "inputs": [sent("INPUT0", "INT32", [1, 16], [1] * 16), entry],
        "outputs": [{"name": "OUTPUT1", "parameters": {"binary_data": True}}, {"name": "OUTPUT0"}],
    }
    body, headers = binary_body(document, raw)
    answer = await client(backend).post(INFER.format("simple"), content=body, headers=headers)
    outputs = read_answer(answer)
    assert outputs["OUTPUT0"].array.tolist() == (1 + left.array).tolist()
    assert outputs["OUTPUT1"].array.tolist() == (1 - left.array).tolist()


@pytest.mark.parametrize(
    ("default", "own", "binary"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True), (None, True, True)],
)
async def test_an_outputs_own_wish_overrides_the_default(backend, default, own, binary):
    """`binary_data_output` is the default, `binary_data` decides."""
    body = {"inputs": [sent("x", "FP32", [1], [1])], "outputs": [{"name": "y", "parameters": {}}], "parameters": {}}
    if default is not None:
        body["parameters"]["binary_data_output"] = default
    if own is not None:
        body["outputs"][0]["parameters"]["binary_data"] = own
    answer = await client(backend).post(INFER.format("FP32"), json=body)
    assert ("inference-header-content-length" in answer.headers) is binary
    assert read_answer(answer)["y"].array.tolist() == [1.0]


async def test_the_default_form_applies_to_outputs_that_nobody_named(backend):
    """Triton's client asks for binary outputs without naming any."""
    inputs = [sent(name, "INT32", [1, 16], [3] * 16) for name in ("INPUT0", "INPUT1")]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = await client(backend).post(INFER.format("simple"), json=body)
    document = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    assert [output["parameters"]["binary_data_size"] for output in document["outputs"]] == [64, 64]
    assert read_answer(answer)["OUTPUT0"].array.tolist() == [[6] * 16]


RAW = np.arange(3, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("size", "extra", "reason"),
    [
        (12, b"!", "request body: 1 bytes are left over after the last binary tensor"),
        (16, b"", "tensor 'x': binary_data_size is 16, only 12 bytes are left"),
        (8, b"", "tensor 'x': FP32 of shape [3] takes 12 bytes, got 8"),
        (-1, b"", "tensor 'x': binary_data_size must be a number of bytes"),
        ("12", b"", "tensor 'x': binary_data_size must be a number of bytes"),
        (True, b"", "tensor 'x': binary_data_size must be a number of bytes"),
        (2**70, b"", "tensor 'x': binary_data_size is"),
    ],
)
async def test_binary_sizes_must_match_exactly(backend, size, extra, reason):
    """Short, long and left-over bytes are 400 (FIELD 1.3, 9)."""
    entry = {"name": "x", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": size}}
    body, headers = binary_body({"inputs": [entry]}, RAW, extra)
    answer = await client(backend).post(INFER.format("FP32"), content=body, headers=headers)
    assert answer.status_code == 400
    assert error_of(answer).startswith(reason)


@pytest.mark.parametrize("length", ["-1", "1.0", "+5", "", "x", "999999", "9" * 30])
async def test_a_broken_header_length_is_400(backend, length):
    """The length of the JSON is a number of bytes within the body."""
    entry, raw = binary_input("x", TENSORS[Datatype.FP32])
    body, _ = binary_body({"inputs": [entry]}, raw)
    headers = {"inference-header-content-length": length}
    answer = await client(backend).post(INFER.format("FP32"), content=body, headers=headers)
    assert answer.status_code == 400
    assert error_of(answer).startswith("header inference-header-content-length: ")


async def test_binary_data_needs_its_header(backend):
    """Without the header nobody can tell where the bytes begin."""
    entry, _ = binary_input("x", TENSORS[Datatype.FP32])
    answer = await client(backend).post(INFER.format("FP32"), json={"inputs": [entry]})
    assert answer.status_code == 400
    assert error_of(answer) == "tensor 'x': binary data needs header inference-header-content-length"


@pytest.mark.parametrize(
    ("datatype", "raw", "reason"),
    [
        ("BOOL", b"\x00\x02\x01", "tensor 'x': BOOL bytes must be 0 or 1"),
        ("BYTES", b"\x05\x00\x00\x00abc", "tensor 'x': "),
        ("BYTES", b"", "tensor 'x': 3 BYTES elements need 12 bytes of lengths"),
    ],
)
async def test_broken_binary_elements_are_400(backend, datatype, raw, reason):
    """BOOL is a byte 0 or 1, BYTES lengths add up."""
    entry = {"name": "x", "datatype": datatype, "shape": [3], "parameters": {"binary_data_size": len(raw)}}
    body, headers = binary_body({"inputs": [entry]}, raw)
    answer = await client(backend).post(INFER.format(datatype), content=body, headers=headers)
    assert answer.status_code == 400
    assert error_of(answer).startswith(reason)


@pytest.mark.parametrize(("declared", "shape"), [((-1,), (4,)), ((-1, 4), (1, 4)), ((-1, -1), (1, 4)), ((4,), (4,))])
async def test_a_raw_body_is_one_row_of_the_models_one_input(backend, declared, shape):
    """Header value 0: the body is tensor bytes alone, and all outputs come back binary."""
    backend.models["raw"] = echo(Datatype.FP32, declared)
    raw = np.arange(4, dtype="<f4").tobytes()
    headers = {"inference-header-content-length": "0", "content-type": "application/octet-stream"}
    answer = await client(backend).post(INFER.format("raw"), content=raw, headers=headers)
    assert read_answer(answer)["y"].shape == shape
    assert read_answer(answer)["y"].raw() == raw


@pytest.mark.parametrize(
    ("declared", "size", "reason"),
    [
        ((-1, 4), 12, "tensor 'x': FP32 of shape [1, 4] takes 16 bytes, got 12"),
        ((-1,), 6, "tensor 'x': 6 raw bytes do not fill shape [-1] of FP32"),
        ((-1, -1, -1), 8, "tensor 'x': raw bytes leave axes [1, 2] of shape [-1, -1, -1] open"),
        ((-1, -1, 0), 8, "tensor 'x': 8 raw bytes do not fill shape [-1, -1, 0] of FP32"),
    ],
)
async def test_raw_bytes_that_fill_no_shape_are_400(backend, declared, size, reason):
    """One free axis is filled from the size, more are not guessed."""
    backend.models["raw"] = echo(Datatype.FP32, declared)
    headers = {"inference-header-content-length": "0"}
    answer = await client(backend).post(INFER.format("raw"), content=bytes(size), headers=headers)
    assert answer.status_code == 400
    assert error_of(answer) == reason


async def test_a_raw_string_has_no_length_in_and_one_out(backend):
    """BYTES: the whole body is the one element; the answer is in the usual binary form."""
    headers = {"inference-header-content-length": "0"}
    answer = await client(backend).post(INFER.format("BYTES"), content=b"\xff\x00str", headers=headers)
    size = int(answer.headers["inference-header-content-length"])
    assert answer.content[size:] == struct.pack("<I", 5) + b"\xff\x00str"
    backend.models["wide"] = echo(Datatype.BYTES, (-1, 2))
    wide = await client(backend).post(INFER.format("wide"), content=b"str", headers=headers)
    assert error_of(wide) == "tensor 'x': raw BYTES stand for one element, the shape is [1, 2]"


async def test_a_raw_body_needs_a_model_of_one_input(backend):
    """Two inputs cannot be told apart without JSON."""
    headers = {"inference-header-content-length": "0"}
    answer = await client(backend).post(INFER.format("simple"), content=bytes(64), headers=headers)
    assert answer.status_code == 400
    assert error_of(answer) == "request body: raw bytes stand for one input, this model has 2"


async def test_a_missing_string_travels_in_binary_as_the_greatest_length():
    """0xFFFFFFFF and no bytes: missing, in both directions."""
    backend = FakeBackend({"s": echo(Datatype.BYTES)})
    entry, raw = binary_input("x", Tensor.of(np.array([None, ""], dtype=object)))
    assert raw == b"\xff\xff\xff\xff\x00\x00\x00\x00"
    body, headers = binary_body({"inputs": [entry], "parameters": {"binary_data_output": True}}, raw)
    answer = await client(backend).post(INFER.format("s"), content=body, headers=headers)
    assert read_answer(answer)["y"].array.tolist() == [None, b""]
