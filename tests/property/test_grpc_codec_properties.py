"""gRPC contents over all datatypes: what goes in raw or typed comes out bit for bit; cutting changes no meaning."""

import math

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.doors import grpc_codec, grpc_wire
from tests.fakes import request
from turnout.core.ids import VersionRef
from turnout.core.request import Prediction
from turnout.core.tensor import Datatype, Tensor, equal_bits, join_bytes
from turnout.core.wire import inference_pb2 as pb

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
TYPED = [datatype for datatype in Datatype if datatype not in (Datatype.FP16, Datatype.BF16)]


@st.composite
def tensors(draw, datatypes, *, missing):
    """Return a tensor of any shape and bits."""
    datatype, shape = draw(st.sampled_from(datatypes)), draw(SHAPES)
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        element = st.binary(max_size=8) | st.none() if missing else st.binary(max_size=8)
        elements = np.empty(count, dtype=object)
        elements[:] = draw(st.lists(element, min_size=count, max_size=count))
        return Tensor.from_raw("x", datatype, shape, join_bytes(elements))
    size = count * datatype.dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    return Tensor.from_raw("x", datatype, shape, bytes(b & 1 for b in raw) if datatype is Datatype.BOOL else raw)


def echo(message):
    """Return the answer of a model whose outputs are its inputs."""
    decoded = grpc_codec.InferMessage(message.SerializeToString()).decode()
    prediction = Prediction(decoded.inputs, VersionRef("m", 1), 1)
    return pb.ModelInferResponse.FromString(decoded.write(prediction, request(request_id="r")))


@given(st.dictionaries(st.text(max_size=5), tensors(list(Datatype), missing=True), min_size=1, max_size=3))
def test_raw_contents_come_back_bit_for_bit(sent):
    """Every datatype, shape and bit pattern survives raw, missing strings included."""
    request = pb.ModelInferRequest()
    for name, tensor in sent.items():
        request.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(bytes(tensor.raw()))
    got = echo(request)
    assert [output.name for output in got.outputs] == list(sent)
    for output, raw, tensor in zip(got.outputs, got.raw_output_contents, sent.values(), strict=True):
        assert equal_bits(Tensor.from_raw("y", Datatype(output.datatype), tuple(output.shape), raw), tensor)


@given(tensors(TYPED, missing=False))
def test_typed_contents_come_back_bit_for_bit(sent):
    """Every datatype with typed contents survives them; numbers keep their sign, their NaN and all 64 bits."""
    request = pb.ModelInferRequest()
    contents = request.inputs.add(name="x", datatype=sent.datatype, shape=sent.shape).contents
    field = grpc_codec._LISTS[sent.datatype][0]
    getattr(contents, field).extend(sent.array.reshape(-1).tolist())
    got = echo(request).outputs[0]
    assert got.contents == contents or sent.datatype.is_float  # NaN is unequal to itself
    back = np.empty(sent.array.size, dtype=sent.array.dtype)
    back[:] = list(getattr(got.contents, field))
    assert equal_bits_but_nan_payload(Tensor(sent.datatype, back.reshape(sent.shape)), sent)


def equal_bits_but_nan_payload(left, right):
    """Compare bits; a NaN's payload may change where Python floats carry it."""
    if not right.datatype.is_float:
        return equal_bits(left, right)
    same = (left.array == right.array) & (np.signbit(left.array) == np.signbit(right.array))
    return bool(np.all(same | (np.isnan(left.array) & np.isnan(right.array))))


@given(st.binary(max_size=64) | st.builds(b"".join, st.lists(st.binary(max_size=5))))
def test_cutting_out_raw_contents_changes_no_meaning(wire):
    """For any bytes: either both readings refuse, or envelope and views hold what the whole message holds."""
    whole = parsed(wire)
    envelope, views = grpc_wire.split(wire, 7)
    rest = parsed(envelope)
    assert (whole is None) == (rest is None)
    if whole is not None:
        raws = list(whole.raw_input_contents)
        assert [bytes(view) for view in views] + list(rest.raw_input_contents) == raws
        rest.raw_input_contents.extend([])
        del rest.raw_input_contents[:]
        rest.raw_input_contents.extend(raws)
        assert rest.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def parsed(wire):
    """Return the message, or None when protobuf refuses it."""
    try:
        return pb.ModelInferRequest.FromString(wire)
    except DecodeError:
        return None


FIELDS = st.one_of(
    st.tuples(st.just(7), st.binary(max_size=300)),
    st.tuples(st.sampled_from([1, 2, 3]), st.text(max_size=5).map(str.encode)),
    st.tuples(st.integers(8, 15), st.binary(max_size=300)),
)


@given(st.lists(FIELDS, max_size=20))
def test_cutting_finds_every_raw_entry(fields):
    """Raw entries are found in order, wherever they stand among other fields."""
    wire = b"".join(b"".join(grpc_wire.delimited(number, payload)) for number, payload in fields)
    envelope, views = grpc_wire.split(wire, 7)
    assert [bytes(view) for view in views] == [payload for number, payload in fields if number == 7]
    rest = [(number, payload) for number, payload in fields if number != 7]
    assert envelope == b"".join(b"".join(grpc_wire.delimited(number, payload)) for number, payload in rest)
