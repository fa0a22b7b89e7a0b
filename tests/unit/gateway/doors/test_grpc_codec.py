"""ModelInfer messages: both forms of contents, refusals by name, answers in the form of the request."""

import numpy as np
import pytest

from gateway.doors import grpc_codec
from gateway.doors.envelope import MAX_INPUTS
from tests.fakes import request
from turnout.core.errors import InvalidInput, ModelFault, TooLarge
from turnout.core.ids import VersionRef
from turnout.core.request import Prediction
from turnout.core.tensor import Datatype, Tensor, equal_bits
from turnout.core.wire import inference_pb2 as pb

REQUEST_ID = "r-1"
LIMIT = 1 << 20
REGION = pb.InferParameter(string_param="r")


def message(*inputs, **fields):
    """Return a request for model `m` with the inputs given as (name, datatype, shape, contents)."""
    request = pb.ModelInferRequest(model_name="m", **fields)
    for name, datatype, shape, contents in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    return request


def decode(request):
    """Return the decoded request."""
    return grpc_codec.InferMessage(request.SerializeToString()).decode()


def written(message, prediction, request_id=REQUEST_ID, limit_bytes=LIMIT):
    """Return the bytes of the answer to a message."""
    decoded = decode(message)
    decoded.limit_bytes = limit_bytes
    return decoded.write(prediction, request(request_id=request_id))


def answer(message, outputs, **kwargs):
    """Return what the caller of `message` reads for `outputs`."""
    return pb.ModelInferResponse.FromString(written(message, Prediction(outputs, VersionRef("m", 3), 7), **kwargs))


def raw_request(tensors, **fields):
    """Return a raw request that carries the tensors."""
    request = message(*((name, t.datatype, t.shape, None) for name, t in tensors.items()), **fields)
    request.raw_input_contents.extend(bytes(t.raw()) for t in tensors.values())
    return request


TYPED = [
    ("BOOL", {"bool_contents": [True, False]}, [True, False]),
    ("INT8", {"int_contents": [-128, 127]}, [-128, 127]),
    ("INT16", {"int_contents": [-32768, 32767]}, [-32768, 32767]),
    ("INT32", {"int_contents": [-(2**31), 2**31 - 1]}, [-(2**31), 2**31 - 1]),
    ("INT64", {"int64_contents": [-(2**63), 2**53 + 1]}, [-(2**63), 2**53 + 1]),
    ("UINT8", {"uint_contents": [0, 255]}, [0, 255]),
    ("UINT16", {"uint_contents": [0, 65535]}, [0, 65535]),
    ("UINT32", {"uint_contents": [0, 2**32 - 1]}, [0, 2**32 - 1]),
    ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, [0, 2**64 - 1]),
    ("FP32", {"fp32_contents": [-0.0, 1.5]}, [-0.0, 1.5]),
    ("FP64", {"fp64_contents": [0.1, 1e308]}, [0.1, 1e308]),
    ("BYTES", {"bytes_contents": [b"", b"\xff\x00"]}, [b"", b"\xff\x00"]),
]


@pytest.mark.parametrize(("datatype", "contents", "values"), TYPED, ids=[row[0] for row in TYPED])
def test_typed_contents_are_read_from_the_list_of_their_datatype(datatype, contents, values):
    """Each datatype has one list; bytes_contents have no length prefixes."""
    tensor = decode(message(("x", datatype, [2], contents))).inputs["x"]
    assert tensor.datatype == datatype
    assert tensor.array.tolist() == values


@pytest.mark.parametrize(
    ("datatype", "values", "index"),
    [("INT8", [0, 128], 1), ("INT8", [-129, 0], 0), ("INT16", [0, 32768], 1), ("INT16", [-32769, 0], 0)],
)
def test_integers_out_of_range_are_refused_never_wrapped(datatype, values, index):
    """INT8 and INT16 share a list of int32 with INT32; what they cannot hold is the caller's mistake."""
    request = message(("x", datatype, [2], {"int_contents": values}))
    with pytest.raises(InvalidInput, match=rf"tensor 'x': element {index} is out of range for {datatype}"):
        decode(request)


@pytest.mark.parametrize(("datatype", "value"), [("UINT8", 256), ("UINT16", 65536), ("UINT8", 2**32 - 1)])
def test_unsigned_integers_out_of_range_are_refused(datatype, value):
    """UINT8 and UINT16 share a list of uint32 with UINT32."""
    request = message(("x", datatype, [1], {"uint_contents": [value]}))
    with pytest.raises(InvalidInput, match=rf"tensor 'x': element 0 is out of range for {datatype}"):
        decode(request)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_sixteen_bit_floats_travel_raw_only(datatype):
    """FP16 and BF16 have no typed contents, whichever list is tried."""
    request = message(("x", datatype, [1], {"fp32_contents": [1.0]}))
    with pytest.raises(InvalidInput, match=f"tensor 'x': {datatype} has no typed contents"):
        decode(request)


def test_contents_in_the_wrong_list_are_refused():
    """Elements in another datatype's list are named, not ignored."""
    request = message(("x", "INT64", [1], {"int_contents": [1]}))
    with pytest.raises(InvalidInput, match="tensor 'x': INT64 goes into int64_contents, not into int_contents"):
        decode(request)


@pytest.mark.parametrize(("shape", "count"), [([2, 3], 6), ([], 1), ([0, 3], 0)])
def test_typed_count_must_be_the_shapes(shape, count):
    """One element too many is refused with both counts."""
    request = message(("x", "FP32", shape, {"fp32_contents": [0.0] * (count + 1)}))
    with pytest.raises(InvalidInput, match=rf"tensor 'x': shape .* takes {count} elements, got {count + 1}"):
        decode(request)
    assert decode(message(("x", "FP32", shape, {"fp32_contents": [0.0] * count}))).inputs["x"].shape == tuple(shape)


def test_no_contents_at_all_count_as_none():
    """An input without contents has zero elements."""
    with pytest.raises(InvalidInput, match=r"tensor 'x': shape \[2\] takes 2 elements, got 0"):
        decode(message(("x", "INT64", [2], None)))


def test_raw_contents_are_all_or_nothing():
    """One raw entry for each input, else a refusal."""
    request = message(("x", "INT32", [1], None), ("y", "INT32", [1], None))
    request.raw_input_contents.append(bytes(4))
    with pytest.raises(InvalidInput, match="raw_input_contents has 1 entries for 2 inputs"):
        decode(request)
    request.raw_input_contents.extend([bytes(4), bytes(4)])
    with pytest.raises(InvalidInput, match="raw_input_contents has 3 entries for 2 inputs"):
        decode(request)


def test_raw_and_typed_at_once_are_refused():
    """Contents beside raw entries are named, even when they say the same."""
    request = message(("x", "INT32", [1], {"int_contents": [1]}))
    request.raw_input_contents.append(b"\x01\x00\x00\x00")
    with pytest.raises(InvalidInput, match="tensor 'x': has contents beside raw_input_contents"):
        decode(request)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_raw_sizes_are_exact(size):
    """Short and long raw entries are refused with both sizes."""
    request = message(("x", "INT64", [1], None))
    request.raw_input_contents.append(bytes(size))
    with pytest.raises(InvalidInput, match=rf"tensor 'x': INT64 of shape \[1\] takes 8 bytes, got {size}"):
        decode(request)


def test_big_raw_contents_are_views_of_the_received_message():
    """No copy of a big tensor is made on the way in."""
    sent = np.arange(65_536, dtype=np.uint8)
    message_bytes = raw_request({"x": Tensor.of(sent)}).SerializeToString()
    tensor = grpc_codec.InferMessage(message_bytes).decode().inputs["x"]
    assert np.shares_memory(tensor.array, np.frombuffer(message_bytes, np.uint8))
    assert tensor.array.size == 65_536


def test_big_raw_numbers_are_aligned():
    """Native runtimes get numbers at addresses they may read, wherever the message put them."""
    for shift in range(8):
        sent = Tensor.of(np.arange(20_000, dtype=np.float64))
        tensor = decode(raw_request({"x": sent}, id="i" * shift)).inputs["x"]
        assert tensor.array.flags.aligned
        assert equal_bits(tensor, sent)


def test_missing_strings_travel_raw():
    """The length 0xFFFFFFFF marks a missing element in raw BYTES."""
    sent = Tensor.of(np.array(["a", None], dtype=object))
    assert decode(raw_request({"s": sent})).inputs["s"].array.tolist() == [b"a", None]


def test_what_is_no_message_is_the_callers_mistake():
    """Bytes that protobuf cannot read are refused, small and big."""
    for broken in (b"\xff", b"\x0a\x05ab", b"\x3a\xff\xff\xff\xff\xff" + bytes(100_000)):
        with pytest.raises(InvalidInput, match="request message: is no ModelInferRequest"):
            grpc_codec.InferMessage(broken)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (message(("x", "BOOL", [0], None), ("x", "BOOL", [0], None)), "tensor 'x': sent twice"),
        (message(("x", "STRING", [0], None)), "tensor 'x': datatype 'STRING' is unknown"),
        (message(("x", "BOOL", [-1], None)), r"tensor 'x': axis 0 of shape \[-1\] is negative"),
        (message(("x", "BOOL", [1] * 33, None)), "tensor 'x': rank 33 is over the limit"),
        (message(("x", "BOOL", [2**40, 2**40], None)), "tensor 'x': shape .* is over the limit"),
        (message(outputs=[{"name": "y"}, {"name": "y"}]), "output 'y': asked for twice"),
        (message(parameters={"p": pb.InferParameter()}), "parameter p: must be a string, a number, true or false"),
        (
            message(outputs=[{"name": "y", "parameters": {"classification": pb.InferParameter(string_param="2")}}]),
            "output 'y': parameter classification must be a whole number",
        ),
        (
            message(
                outputs=[{"name": "y", "parameters": {"shared_memory_region": pb.InferParameter(string_param="r")}}]
            ),
            "output 'y': shared memory is not offered",
        ),
        (
            pb.ModelInferRequest(
                inputs=[
                    {
                        "name": "x",
                        "datatype": "FP32",
                        "parameters": {"shared_memory_region": REGION},
                    }
                ]
            ),
            "tensor 'x': shared memory is not offered",
        ),
        (
            pb.ModelInferRequest(inputs=[{"name": f"x{i}"} for i in range(MAX_INPUTS + 1)]),
            "16385 inputs are over the limit of 16384",
        ),
    ],
)
def test_form_is_refused_by_name(request_, reason):
    """Every fault of form names its tensor, output or parameter."""
    with pytest.raises(InvalidInput, match=reason):
        decode(request_)


def test_parameters_of_all_five_types_keep_their_type():
    """True stays a flag, a double keeps its fraction, a uint64 its upper half."""
    values = {
        "b": pb.InferParameter(bool_param=True),
        "i": pb.InferParameter(int64_param=-(2**63)),
        "s": pb.InferParameter(string_param=""),
        "d": pb.InferParameter(double_param=3.3),
        "u": pb.InferParameter(uint64_param=2**64 - 1),
    }
    got = decode(message(parameters=values)).parameters
    assert got == {"b": True, "i": -(2**63), "s": "", "d": 3.3, "u": 2**64 - 1}
    assert got["b"] is True


OUTPUTS = {"label": Tensor.of(np.array([4], dtype=np.int64)), "p": Tensor.of(np.array([[0.25, 0.75]]))}


def test_answer_to_raw_is_raw():
    """A raw request gets one raw entry for each output, in order, and no contents."""
    got = answer(raw_request({"x": OUTPUTS["p"]}), OUTPUTS)
    assert [output.name for output in got.outputs] == ["label", "p"]
    assert list(got.raw_output_contents) == [bytes(tensor.raw()) for tensor in OUTPUTS.values()]
    assert not any(output.HasField("contents") for output in got.outputs)


def test_answer_to_typed_is_typed():
    """A typed request gets typed contents and nothing raw."""
    got = answer(message(("x", "FP32", [0], None)), OUTPUTS)
    assert list(got.outputs[0].contents.int64_contents) == [4]
    assert list(got.outputs[1].contents.fp64_contents) == [0.25, 0.75]
    assert list(got.outputs[1].shape) == [1, 2]
    assert not got.raw_output_contents


@pytest.mark.parametrize(
    "tensor",
    [Tensor.of(np.array([1.5], np.float16)), Tensor.of(np.array([None, b"a"], dtype=object))],
    ids=["FP16", "missing string"],
)
def test_an_output_without_typed_form_makes_the_answer_raw(tensor):
    """Raw is all or nothing in answers too."""
    got = answer(message(("x", "FP32", [0], None)), {"label": OUTPUTS["label"], "y": tensor})
    assert [bytes(OUTPUTS["label"].raw()), bytes(tensor.raw())] == list(got.raw_output_contents)
    assert not any(output.HasField("contents") for output in got.outputs)


def test_answer_says_who_answered():
    """The name that the caller used, the number that ran, the id as sent, and our own facts as parameters."""
    got = answer(message(id="mine"), OUTPUTS)
    assert (got.model_name, got.model_version, got.id) == ("m", "3", "mine")
    assert got.parameters["turnout-request-id"].string_param == REQUEST_ID
    assert got.parameters["turnout-version"].string_param == "m@3"
    assert got.parameters["turnout-generation"].int64_param == 7
    assert "turnout-fallback" not in got.parameters


def test_a_constant_answer_has_no_version():
    """Where a route's declared value answered, no version is claimed."""
    wire = written(message(), Prediction(OUTPUTS, None, 7, "value"))
    got = pb.ModelInferResponse.FromString(wire)
    assert got.model_version == got.id == ""
    assert got.parameters["turnout-fallback"].string_param == "value"
    assert "turnout-version" not in got.parameters


def test_classification_answers_value_and_index():
    """An output asked with `classification` comes as BYTES `value:index`, value first, best first."""
    asked = message(outputs=[{"name": "p", "parameters": {"classification": pb.InferParameter(int64_param=2)}}])
    got = answer(asked, {"p": OUTPUTS["p"]})
    assert (got.outputs[0].datatype, list(got.outputs[0].shape)) == ("BYTES", [1, 2])
    assert list(got.outputs[0].contents.bytes_contents) == [b"0.75:1", b"0.25:0"]


def test_classification_of_a_value_without_order_is_the_models_fault():
    """NaN has no place in an order."""
    asked = message(outputs=[{"name": "p", "parameters": {"classification": pb.InferParameter(int64_param=1)}}])
    with pytest.raises(ModelFault):
        answer(asked, {"p": Tensor.of(np.array([[np.nan]]))})


def test_an_answer_over_the_limit_is_refused():
    """No answer outgrows the message limit."""
    with pytest.raises(TooLarge, match=r"the answer of .* is over the limit of 10 bytes"):
        answer(message(), OUTPUTS, limit_bytes=10)


def test_walking_over_many_elements_is_known_before():
    """Big typed contents and big strings are for a thread; big raw numbers are a view and stay on the loop."""
    numbers = np.arange(20_000, dtype=np.int64)
    strings = np.array([b"0123456789"] * 20_000, dtype=object)
    cases = {
        raw_request({"x": Tensor.of(numbers)}).SerializeToString(): False,
        raw_request({"x": Tensor.of(strings)}).SerializeToString(): True,
        message(("x", "INT64", [20_000], {"int64_contents": numbers + 2**40})).SerializeToString(): True,
        raw_request({"x": Tensor.of(numbers[:10])}).SerializeToString(): False,
    }
    assert [grpc_codec.InferMessage(wire).many_elements for wire in cases] == list(cases.values())


def test_every_datatype_is_either_typed_or_raw_only():
    """The table of lists is total but for the two 16-bit floats."""
    assert set(Datatype) - set(grpc_codec._LISTS) == {Datatype.FP16, Datatype.BF16}


@pytest.mark.parametrize("length", [1, 32, 127, 128])
def test_request_ids_of_any_valid_length_are_written(length):
    """An answer put together from parts reads as one message, whatever the id's length does to the sizes in it."""
    wire = written(message(id="é" * 200), Prediction(OUTPUTS, None, 7), "r" * length)
    got = pb.ModelInferResponse.FromString(wire)
    assert got.parameters["turnout-request-id"].string_param == "r" * length
    assert (got.id, len(got.outputs), len(got.parameters)) == ("é" * 200, 2, 2)
