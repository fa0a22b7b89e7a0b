"""Infer bodies: what a client writes is read back bit for bit in any mixture; whatever else comes is InvalidInput."""

import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.doors import http_codec, json_body
from gateway.doors.answer import PlannedAnswer, WantedOutput
from gateway.doors.classification import classify
from gateway.doors.compression import unpack
from gateway.doors.http_headers import Headers
from gateway.doors.tf_serving import PredictForm
from gateway.limits import Limits
from tests.fakes import request
from turnout.core.errors import InvalidInput, TooLarge
from turnout.core.request import Prediction
from turnout.core.signature import TensorSpec
from turnout.core.tensor import DTYPES, Datatype, Tensor, equal_bits

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
NO_JSON = (Datatype.FP16, Datatype.BF16)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def tensors(draw):
    """Draw a tensor of any datatype; finite, so that JSON can carry it."""
    datatype = draw(st.sampled_from(list(Datatype)))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    if datatype is Datatype.BYTES:
        return Tensor.of(
            np.array([*draw(st.lists(TEXT, min_size=count, max_size=count)), ""], object)[:-1].reshape(shape)
        )
    if datatype is Datatype.BF16:
        return Tensor(
            datatype,
            np.array(draw(st.lists(st.integers(-9, 9), min_size=count, max_size=count)))
            .astype(DTYPES[datatype])
            .reshape(shape),
        )
    elements = None
    if datatype.is_float:
        elements = st.floats(allow_nan=False, allow_infinity=False, width=DTYPES[datatype].itemsize * 8)
    return Tensor(datatype, draw(hnp.arrays(DTYPES[datatype], shape, elements=elements, fill=st.nothing())))


def entry(name, tensor, *, binary):
    """Return an input as a client writes it."""
    document = {"name": name, "datatype": str(tensor.datatype), "shape": list(tensor.shape)}
    if binary:
        return {**document, "parameters": {"binary_data_size": len(bytes(tensor.raw()))}}
    flat = tensor.array.reshape(-1).tolist()
    return {**document, "data": [e.decode() for e in flat] if tensor.datatype is Datatype.BYTES else flat}


def read(document, raws=None):
    """Decode a document with raw tensors behind it."""
    text = json.dumps(document).encode()
    if raws is None:
        return http_codec.decode(text, Headers({}), 100)
    length = [(b"inference-header-content-length", b"%d" % len(text))]
    return http_codec.decode(text + b"".join(raws), Headers(dict(length)), 100)


@given(st.lists(st.tuples(tensors(), st.booleans()), max_size=5))
def test_any_mixture_of_json_and_binary_reads_back(cases):
    """Every tensor arrives bit for bit, whatever the form of its neighbours."""
    forms = [(tensor, binary or tensor.datatype in NO_JSON) for tensor, binary in cases]
    document = {"inputs": [entry(str(i), tensor, binary=binary) for i, (tensor, binary) in enumerate(forms)]}
    request = read(document, [bytes(tensor.raw()) for tensor, binary in forms if binary])
    assert list(request.inputs) == [str(i) for i in range(len(cases))]
    for got, (tensor, _) in zip(request.inputs.values(), cases, strict=True):
        assert equal_bits(got, tensor)
        assert got.array.flags.aligned


@given(st.lists(st.tuples(tensors(), st.booleans()), min_size=1, max_size=4))
def test_any_mixture_of_answers_reads_back(cases):
    """What is written is what a client reads, its sizes included."""
    forms = {str(i): (tensor, binary or tensor.datatype in NO_JSON) for i, (tensor, binary) in enumerate(cases)}
    plan = PlannedAnswer(
        {name: WantedOutput(binary=binary) for name, (_, binary) in forms.items()}, binary=False, annotated=False
    )
    prediction = Prediction({name: tensor for name, (tensor, _) in forms.items()}, None, 1)
    written = plan.write(prediction, request(name="m", request_id="r"))
    document, rest = json.loads(written.body), b"".join(written.raws)
    for output, (tensor, binary) in zip(document["outputs"], forms.values(), strict=True):
        assert (output["datatype"], output["shape"]) == (tensor.datatype, list(tensor.shape))
        assert ("data" in output) is not binary
        if binary:
            size = output["parameters"]["binary_data_size"]
            assert equal_bits(Tensor.from_raw("y", tensor.datatype, tensor.shape, rest[:size]), tensor)
            rest = rest[size:]
        else:
            back = read({"inputs": [{**output, "name": "y"}]}).inputs["y"]
            assert equal_bits(back, tensor)
    assert rest == b""


@given(tensors(), st.integers(-3, 3).filter(bool))
def test_any_other_size_is_refused(tensor, off):
    """One byte more or less is never read as something else."""
    raw = bytes(tensor.raw())
    changed = raw + bytes(off) if off > 0 else raw[:off]
    if changed == raw:
        return
    with pytest.raises(InvalidInput):
        read({"inputs": [entry("x", tensor, binary=True)]}, [changed])


FIELDS = st.sampled_from(
    ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id", "binary_data_size"]
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 2**65), st.floats(), st.sampled_from(["x", "FP32", "BYTES", "é"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(FIELDS, inner, max_size=5)),
    max_leaves=20,
)


REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(st.dictionaries(FIELDS, VALUES, max_size=5), max_size=3)},
    optional={"outputs": st.lists(VALUES, max_size=2), "parameters": VALUES, "id": VALUES},
)


@given(st.one_of(VALUES, REQUESTS), st.binary(max_size=12), st.one_of(st.none(), st.integers(-1, 300)))
def test_nothing_but_a_request_or_invalid_input_comes_of_any_document(value, tail, length):
    """Garbage of the right words never ends in anything else."""
    body = json.dumps(value).encode() + tail
    headers = Headers({} if length is None else {b"inference-header-content-length": str(length).encode()})
    try:
        request = http_codec.decode(body, headers, 100)
    except InvalidInput:
        return
    assert all(tensor.datatype in Datatype for tensor in request.inputs.values())


SPECS = [
    TensorSpec("x", Datatype.FP32, (-1, 2)),
    TensorSpec("s", Datatype.BYTES, (-1,), nullable=True),
    TensorSpec("i", Datatype.INT64, (-1,)),
]


@given(
    st.dictionaries(
        st.sampled_from(["instances", "inputs", "signature_name"]),
        st.recursive(
            st.one_of(
                st.none(), st.integers(-3, 2**65), st.floats(), st.sampled_from(["a", "YQ==", "serving_default"])
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["x", "s", "i", "b64"]), inner, max_size=3)
            ),
            max_leaves=12,
        ),
    ),
    st.integers(1, 3),
    st.binary(max_size=3),
)
def test_nothing_but_tensors_or_invalid_input_comes_of_rows_and_columns(value, inputs, tail):
    """The same holds for TF Serving's form, with one input and with several."""
    body = json.dumps(value).encode().replace(b"YQ", tail or b"YQ")
    try:
        request = PredictForm(Limits()).read(body, Headers({}), SPECS[:inputs])
    except InvalidInput:
        return
    assert all(tensor.datatype in Datatype for tensor in request.inputs.values())


@given(st.binary(max_size=60), st.sampled_from(list(Datatype)), st.lists(st.integers(-1, 3), max_size=3))
def test_raw_bodies_fill_the_shape_or_are_refused(body, datatype, shape):
    """A raw body is exactly the tensor's bytes or InvalidInput."""
    spec = TensorSpec("x", datatype, tuple(shape))
    try:
        request = http_codec.decode_raw(body, [spec])
    except InvalidInput:
        return
    raw = bytes(request.inputs["x"].raw())
    assert raw[4:] == body if datatype is Datatype.BYTES else raw == body


@given(VALUES)
def test_depth_is_that_of_the_document(value):
    """The quick count agrees with a walk."""

    def walk(node):
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if inner is None else 1 + max(map(walk, inner), default=0)

    assert json_body.depth(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == walk(value)


@given(st.binary(max_size=300), st.integers(1, 300))
def test_packed_bodies_are_whole_or_too_large(body, limit):
    """Unpacking gives the body, or stops at the limit."""
    packed = zlib.compress(body)
    if len(body) > limit:
        with pytest.raises(TooLarge):
            unpack(packed, b"deflate", limit)
    else:
        assert unpack(packed, b"deflate", limit) == body


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(-3, 3)))
def test_classes_are_sorted_and_stable(array):
    """Values fall, and equal ones keep their order."""
    best = classify("y", Tensor.of(array), array.shape[1]).array
    for row, texts in zip(array, best, strict=True):
        order = [int(text.split(b":")[1]) for text in texts]
        assert order == sorted(range(len(row)), key=lambda index: (-row[index], index))
