"""Infer bodies over HTTP: JSON, binary tensors, one raw tensor, outputs and parameters (FIELD 4.2 to 4.5)."""

import json

import numpy as np
import pytest

from tests.fake_backend import FakeBackend, constant, echo, simple
from tests.unit.gateway.doors.http_client import TENSORS, binary_body, binary_input, client, error_of, read_answer, sent
from turnout.core.tensor import Datatype, Tensor, equal_bits

INFER = "/v2/models/{}/infer"


@pytest.fixture
def backend():
    """A gateway that echoes every datatype under its name."""
    return FakeBackend({str(datatype): echo(datatype) for datatype in Datatype} | {"simple": simple()})


@pytest.mark.parametrize("datatype", [d for d in Datatype if d not in (Datatype.FP16, Datatype.BF16)])
async def test_every_json_datatype_comes_back_bit_for_bit(backend, datatype):
    """JSON in, JSON out: also the limits of 64 bits, -0.0, the empty string and NUL."""
    tensor = TENSORS[datatype]
    data = [e.decode() for e in tensor.array] if datatype is Datatype.BYTES else tensor.array.tolist()
    body = {"inputs": [sent("x", datatype, [3], data)]}
    answer = await client(backend).post(INFER.format(datatype), json=body)
    output = answer.json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [3])
    assert output["data"] == data
    assert equal_bits(backend.requests[0].inputs["x"], tensor)


GOOD = sent("x", "FP32", [2], [1, 2])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "request body: empty, JSON is expected"),
        (b"{", "request body: "),
        (b"[]", "request body: must be an object, got an array"),
        (b"\xff\xfe", "request body: "),
        (b'{"inputs":[{"name":"\xff"}]}', "request body: JSON must be UTF-8"),
        (b"{}", "request body: field 'inputs' is missing"),
        (
            {"instances": [[1]]},
            "request body: field 'inputs' is missing; instances go to /v1/models/NAME:predict, inputs come here",
        ),
        ({"inputs": [{**GOOD, "name": "X"}]}, "tensor 'x': missing, and tensor 'X' is unknown; inputs are 'x'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, "tensor 'x': field 'shape' is missing"),
        (b'{"inputs":{}}', "request body, field 'inputs': must be an array, got an object"),
        (b'{"inputs":[{}]}', "tensor 0 of inputs: field 'name' is missing"),
        (b'{"inputs":[{"name":"x"}]}', "tensor 'x': field 'datatype' is missing"),
        ({"inputs": [{**GOOD, "shape": "2"}]}, "tensor 'x': shape: must be an array, got a string"),
        (
            {"inputs": [{**GOOD, "shape": [2.0]}]},
            "tensor 'x': shape[0]: must be a whole number, got a number with a fraction or exponent",
        ),
        ({"inputs": [{**GOOD, "shape": [True]}]}, "tensor 'x': shape[0]: must be a whole number, got true or false"),
        ({"inputs": [{**GOOD, "shape": [-2]}]}, "tensor 'x': axis 0 of shape [-2] is negative"),
        ({"inputs": [{**GOOD, "shape": [1] * 33}]}, "tensor 'x': rank 33 is over the limit of 32"),
        ({"inputs": [{**GOOD, "shape": [0, 2**62, 2**62]}]}, "tensor 'x': shape [0, "),
        ({"inputs": [{**GOOD, "shape": [3]}]}, "tensor 'x': shape [3] takes 3 elements, got 2"),
        (
            {"inputs": [{**GOOD, "datatype": "FLOAT"}]},
            "tensor 'x': datatype 'FLOAT' is unknown; text is BYTES; known are BOOL",
        ),
        ({"inputs": [{**GOOD, "datatype": "fp32"}]}, "tensor 'x': datatype 'fp32' is unknown"),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "tensor 'x': datatype must be FP32, got FP64"),
        ({"inputs": [{**GOOD, "data": [1, "2"]}]}, "tensor 'x': element 1 must be a number, got str"),
        ({"inputs": [{**GOOD, "data": [[1], [2, 3]], "shape": [2, 1]}]}, "tensor 'x': data is ragged"),
        ({"inputs": [{**GOOD, "data": [1, 1e39]}]}, "tensor 'x': element 1 overflows FP32"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]}, "tensor 'x': has neither data nor"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]}, "tensor 'x': has both data and"),
        ({"inputs": [GOOD, GOOD]}, "tensor 'x': sent twice"),
        ({"inputs": [GOOD, {**GOOD, "name": "z"}]}, "tensor 'z': unknown; inputs are 'x'"),
        ({"inputs": []}, "tensor 'x': missing; inputs are 'x'"),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "output 'z': unknown; outputs are 'y'"),
        ({"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y': asked for twice"),
        ({"inputs": [GOOD], "outputs": [{}]}, "tensor 0 of outputs: field 'name' is missing"),
        ({"inputs": [GOOD], "outputs": ["y"]}, "tensor 0 of outputs: must be an object, got a string"),
        ({"inputs": [GOOD], "id": 5}, "request body, field 'id': must be a string or null, got a whole number"),
        ({"inputs": [GOOD], "parameters": {"a": [1]}}, "parameter a: must be a string, a number, true or false"),
        ({"inputs": [GOOD], "parameters": {"a": {"b": 1}}}, "parameter a: must be a string, a number, true or false"),
        ({"inputs": [GOOD], "parameters": {"a": None}}, "parameter a: must be a string, a number, true or false"),
        ({"inputs": [GOOD], "parameters": {"a": 2**64}}, "parameter a: is beyond 64 bits"),
        ({"inputs": [GOOD], "parameters": {"binary_data_output": 1}}, "parameter binary_data_output: must be true"),
        ({"inputs": [GOOD], "parameters": {"turnout": "yes"}}, "parameter turnout: must be true or false"),
        ({"inputs": [{**GOOD, "parameters": {"a": []}}]}, "tensor 'x': parameter a: must be a string, a number"),
        ({"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}, "data": []}]}, "tensor 'x': shared memory"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,NaN]}]}', "request body: NaN and Infinity"),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,1e400]}]}',
            "tensor 'x': element 1 overflows",
        ),
        (b'{"inputs":[{"name":1}', "request body, field 'inputs[0].name': must be a string, got a whole number"),
        (b'{"inputs":[{"name":1,"\xff":1}]}', "tensor 0 of inputs: name: must be a string, got a whole number"),
        (b'{"inputs":[],"parameters":{"a":[],"\xff":1}}', "request body, field 'parameters[...]': must be"),
        (b'{"inputs":[],"parameters":{"a":1e400}}', "parameter a: Number out of range"),
    ],
)
async def test_bad_bodies_are_400_and_name_what_is_wrong(backend, body, reason):
    """The caller learns the tensor, output, parameter or field at fault."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client(backend).post(INFER.format("FP32"), content=content)
    assert answer.status_code == 400
    assert error_of(answer).startswith(reason)
    assert "turnout-version" not in answer.headers or backend.requests


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("y", {"binary_data": 1}, "output 'y': parameter binary_data must be true or false"),
        ("y", {"nonfinite": "zero"}, "output 'y': parameter nonfinite can only be null"),
        ("y", {"classification": 0}, "output 'y': parameter classification must be a whole number from 1 up"),
        ("y", {"classification": True}, "output 'y': parameter classification must be a whole number from 1 up"),
        ("y", {"classification": "2"}, "output 'y': parameter classification must be a whole number from 1 up"),
        ("y", {"other": None}, "output 'y': parameter other: must be a string, a number, true or false"),
        ("y", {"nonfinite": None, "other": {}}, "output 'y': parameter other: must be a string, a number"),
        ("y", {"other": [1]}, "output 'y': parameter other: must be a string, a number"),
        ("y", {"shared_memory_region": "r"}, "output 'y': shared memory is not offered"),
    ],
)
async def test_bad_output_parameters_are_400(backend, name, parameters, reason):
    """Each output's own parameters are checked by name."""
    body = {"inputs": [GOOD], "outputs": [{"name": name, "parameters": parameters}]}
    answer = await client(backend).post(INFER.format("FP32"), json=body)
    assert answer.status_code == 400
    assert error_of(answer).startswith(reason)


async def test_only_the_outputs_asked_for_come_in_their_order(backend):
    """Named outputs only; none named, or an empty list, means all."""
    calls = client(backend)
    inputs = [sent(name, "INT32", [1, 16], [3] * 16) for name in ("INPUT0", "INPUT1")]

    async def names(**more):
        answer = await calls.post(INFER.format("simple"), json={"inputs": inputs, **more})
        return [output["name"] for output in answer.json()["outputs"]]

    assert await names() == ["OUTPUT0", "OUTPUT1"]
    assert await names(outputs=[]) == ["OUTPUT0", "OUTPUT1"]
    assert await names(outputs=[{"name": "OUTPUT1"}]) == ["OUTPUT1"]
    assert await names(outputs=[{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]) == ["OUTPUT1", "OUTPUT0"]


async def test_the_id_is_echoed_and_never_invented(backend):
    """Given: echoed; absent, empty or null: left out."""
    calls = client(backend)
    for offered, expected in (("a/b ü", "a/b ü"), ("", None), (None, None)):
        answer = await calls.post(INFER.format("FP32"), json={"inputs": [GOOD], "id": offered})
        assert answer.json().get("id") == expected
    assert "id" not in (await calls.post(INFER.format("FP32"), json={"inputs": [GOOD]})).json()


async def test_null_envelope_fields_are_as_good_as_absent(backend):
    """Some clients write every field."""
    body = {"inputs": [{**GOOD, "parameters": None}], "outputs": None, "parameters": None, "id": None, "extra": 1}
    assert (await client(backend).post(INFER.format("FP32"), json=body)).status_code == 200


async def test_our_remarks_are_in_the_body_only_on_request(backend):
    """`turnout: true` puts id, version and generation into parameters."""
    calls = client(backend)
    plain = await calls.post(INFER.format("FP32"), json={"inputs": [GOOD]})
    assert "parameters" not in plain.json()
    body = {"inputs": [GOOD], "parameters": {"turnout": True}}
    answer = await calls.post(INFER.format("FP32"), json=body, headers={"turnout-request-id": "r1"})
    assert answer.json()["parameters"] == {
        "turnout-request-id": "r1",
        "turnout-generation": 7,
        "turnout-version": "FP32@1",
    }


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_non_finite_outputs_are_a_fault_in_json_unless_null_is_asked_for(value):
    """Binary passes them; JSON does on request; else the model failed, and it counts as that."""
    backend = FakeBackend({"m": constant(y=Tensor.of(np.array([1.0, value])))})
    calls = client(backend)
    row = {"inputs": [sent("x", "FP64", [1], [None])]}
    failed = await calls.post(INFER.format("m"), json=row)
    assert (failed.status_code, backend.outcomes) == (500, ["model_fault"])
    assert error_of(failed).startswith("the model failed on this request")
    for asked in (None, "null"):
        body = {**row, "outputs": [{"name": "y", "parameters": {"nonfinite": asked}}]}
        assert (await calls.post(INFER.format("m"), json=body)).json()["outputs"][0]["data"] == [1.0, None]
    body = {**row, "parameters": {"binary_data_output": True}}
    binary = read_answer(await calls.post(INFER.format("m"), json=body))["y"]
    assert equal_bits(binary, Tensor.of(np.array([1.0, value])))


async def test_what_json_cannot_carry_is_400_naming_the_binary_extension():
    """FP16 and BF16 both ways, and bytes that are no text."""
    backend = FakeBackend(
        {
            "half": echo(Datatype.FP16),
            "brain": echo(Datatype.BF16),
            "m": constant(y=Tensor.of(np.array([b"\xff"], dtype=object))),
            "h": constant(y=TENSORS[Datatype.FP16]),
        }
    )
    calls = client(backend)
    for name, datatype in (("half", "FP16"), ("brain", "BF16")):
        answer = await calls.post(INFER.format(name), json={"inputs": [sent("x", datatype, [1], [1])]})
        assert answer.status_code == 400
        assert error_of(answer).startswith(f"tensor 'x': {datatype} has no JSON form; use the binary tensor extension")
    row = {"inputs": [sent("x", "FP64", [1], [1])]}
    for name in ("m", "h"):
        answer = await calls.post(INFER.format(name), json=row)
        assert answer.status_code == 400
        assert "the binary tensor extension" in error_of(answer)


async def test_null_is_missing_where_the_model_takes_it():
    """A null is NaN in floats, a missing string where strings may be missing, and 400 elsewhere."""
    backend = FakeBackend(
        {"f": echo(Datatype.FP64), "s": echo(Datatype.BYTES), "t": echo(Datatype.BYTES, nullable=False)}
    )
    calls = client(backend)
    await calls.post(INFER.format("f"), json={"inputs": [sent("x", "FP64", [1], [None])]})
    assert np.isnan(backend.requests[0].inputs["x"].array[0])
    strings = {"inputs": [sent("x", "BYTES", [2], [None, ""])]}
    answer = await calls.post(INFER.format("s"), json=strings)
    assert answer.json()["outputs"][0]["data"] == [None, ""]
    refused = await calls.post(INFER.format("t"), json=strings)
    assert error_of(refused) == "tensor 'x': element 0 is null; this model takes no missing strings"


async def test_shape_counts_elements_also_for_strings(backend):
    """Two strings are shape [2], however long they are."""
    answer = await client(backend).post(
        INFER.format("BYTES"), json={"inputs": [sent("x", "BYTES", [2], ["long text", "b"])]}
    )
    assert answer.json()["outputs"][0]["shape"] == [2]


async def test_zero_rows_are_read_and_answered(backend):
    """A zero-row request is a request, in JSON and in binary."""
    answer = await client(backend).post(INFER.format("FP32"), json={"inputs": [sent("x", "FP32", [0], [])]})
    assert answer.json()["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [0], "data": []}
    entry, raw = binary_input("x", Tensor.of(np.zeros(0, np.float32)))
    body, headers = binary_body({"inputs": [entry], "parameters": {"binary_data_output": True}}, raw)
    binary = await client(backend).post(INFER.format("FP32"), content=body, headers=headers)
    assert read_answer(binary)["y"].shape == (0,)


async def test_classification_answers_values_with_their_index():
    """`value:index` strings, greatest first, at most as many as there are classes."""
    scores = Tensor.of(np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], dtype=np.float32))
    backend = FakeBackend({"m": constant(y=scores)})
    row = {"inputs": [sent("x", "FP64", [2], [1, 2])]}
    for count, data in ((2, ["0.7:1", "0.2:2", "0.5:0", "0.5:1"]), (1, ["0.7:1", "0.5:0"])):
        body = {**row, "outputs": [{"name": "y", "parameters": {"classification": count}}]}
        output = (await client(backend).post(INFER.format("m"), json=body)).json()["outputs"][0]
        assert output == {"name": "y", "datatype": "BYTES", "shape": [2, count], "data": data}
    body = {**row, "outputs": [{"name": "y", "parameters": {"classification": 9, "binary_data": True}}]}
    assert read_answer(await client(backend).post(INFER.format("m"), json=body))["y"].shape == (2, 3)


async def test_what_has_no_order_is_not_classified():
    """Strings and booleans are 400, a NaN is the model's fault."""
    backend = FakeBackend({"s": constant(y=TENSORS[Datatype.BYTES]), "n": constant(y=Tensor.of(np.array([[np.nan]])))})
    body = {
        "inputs": [sent("x", "FP64", [1], [1])],
        "outputs": [{"name": "y", "parameters": {"classification": 1, "nonfinite": None}}],
    }
    assert (await client(backend).post(INFER.format("s"), json=body)).status_code == 400
    assert (await client(backend).post(INFER.format("n"), json=body)).status_code == 500


async def test_more_inputs_than_anybody_needs_are_refused(backend):
    """The number of tensors is bounded like everything else."""
    body = {"inputs": [{"name": str(i), "datatype": "FP32", "shape": [0], "data": []} for i in range(16_385)]}
    answer = await client(backend).post(INFER.format("FP32"), json=body)
    assert error_of(answer) == "request body: 16385 inputs are over the limit of 16384"


async def test_half_a_surrogate_pair_is_named(backend):
    """An escape that stands for no character is told as such; a whole pair is a character."""
    document = rb'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["%b"]}]}'
    broken = await client(backend).post(INFER.format("BYTES"), content=document % rb"\ud83d")
    assert broken.status_code == 400
    assert error_of(broken) == "request body: a string holds half of a surrogate pair, which is no text"
    whole = await client(backend).post(INFER.format("BYTES"), content=document % rb"\ud83d\ude00")
    assert whole.json()["outputs"][0]["data"] == ["\U0001f600"]
