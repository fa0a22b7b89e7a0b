"""JSON tensors: what is written is read back bit for bit, and whatever else is thrown in is refused by name."""

import json
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.tensor import DTYPES, INTEGERS, Datatype, Tensor, equal_bits

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMBERS = sorted({*INTEGERS, Datatype.BOOL, Datatype.FP32, Datatype.FP64})


def finite(datatype):
    """Return the elements that JSON can carry, or None for all."""
    if datatype.is_float:
        width = DTYPES[datatype].itemsize * 8
        return st.floats(allow_nan=False, allow_infinity=False, width=width)
    return None


ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda datatype: st.tuples(
        st.just(datatype), hnp.arrays(DTYPES[datatype], SHAPES, elements=finite(datatype), fill=st.nothing())
    )
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)


@pytest.fixture(params=[4, 1 << 20], autouse=True, ids=["by pieces", "at once"], scope="module")
def _piece_bytes(request):
    """Read everything in both ways."""
    with mock.patch.object(json_tensor, "_PIECE_BYTES", request.param):
        yield


@given(ARRAYS)
def test_numbers_round_trip_flat_and_nested(case):
    """decode(encode(x)) is x, bit for bit, also from the nested form that any JSON library writes."""
    datatype, array = case
    tensor = Tensor(datatype, array)
    flat = json_tensor.encode(tensor, name="x", nonfinite_null=False)
    assert equal_bits(json_tensor.decode("x", datatype, array.shape, flat), tensor)
    if array.ndim:
        nested = json.dumps(array.tolist()).encode()
        assert equal_bits(json_tensor.decode("x", datatype, array.shape, nested), tensor)


@given(st.lists(st.one_of(st.none(), TEXT), max_size=20))
def test_text_round_trips(texts):
    """Any text and missing elements survive JSON."""
    tensor = Tensor.of(np.array([*texts, ""], dtype=object))
    data = json_tensor.encode(tensor, name="s", nonfinite_null=False)
    assert equal_bits(json_tensor.decode("s", Datatype.BYTES, tensor.shape, data), tensor)


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(), fill=st.nothing()))
def test_null_reads_back_as_nan(array):
    """What is not finite is null when asked, and reads back as NaN; the rest keeps its bits."""
    data = json_tensor.encode(Tensor.of(array), name="x", nonfinite_null=True)
    back = json_tensor.decode("x", Datatype.FP64, array.shape, data)
    expected = np.where(np.isfinite(array), array, np.nan)
    assert equal_bits(back, Tensor.of(expected))


@given(st.sampled_from(sorted(INTEGERS)), st.integers(-(2**66), 2**66))
def test_integers_are_exact_or_refused(datatype, value):
    """No integer is ever wrapped or rounded."""
    limits = np.iinfo(datatype.dtype)
    data = str([value]).encode()
    if limits.min <= value <= limits.max:
        assert int(json_tensor.decode("x", datatype, (1,), data).array[0]) == value
        return
    with pytest.raises(InvalidInput, match="element 0 is out of range"):
        json_tensor.decode("x", datatype, (1,), data)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_in_fp32_round_or_are_refused(value):
    """FP32 takes the nearest finite number or refuses; infinity never appears."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    try:
        tensor = json_tensor.decode("x", Datatype.FP32, (1,), json.dumps([value]).encode())
    except InvalidInput:
        assert math.isinf(nearest)
        return
    assert tensor.array.tobytes() == nearest.tobytes()


@given(
    st.sampled_from(sorted(Datatype)),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=30)),
)
def test_any_json_is_a_tensor_of_that_shape_or_refused_by_name(datatype, shape, data):
    """Nothing but InvalidInput with the tensor's name comes out of garbage."""
    refusal, tensor = "", None
    try:
        tensor = json_tensor.decode("x", datatype, shape, data)
    except InvalidInput as error:
        refusal = error.message
    if tensor is None:
        assert refusal.startswith("tensor 'x': ")
    else:
        assert (tensor.shape, tensor.array.dtype) == (shape, datatype.dtype)
