"""Raw forms and casts hold for whatever is thrown at them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core.errors import InvalidInput
from turnout.core.presentation import CastError, cast
from turnout.core.tensor import DTYPES, INTEGERS, Datatype, Tensor, equal_bits, join_bytes, split_bytes

FIXED = sorted(set(Datatype) - {Datatype.BYTES, Datatype.BF16, Datatype.BOOL})
ELEMENTS = st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=30)


@given(
    st.sampled_from(FIXED).flatmap(lambda d: st.tuples(st.just(d), hnp.arrays(DTYPES[d], hnp.array_shapes(min_side=0))))
)
def test_raw_form_round_trips_every_bit(case):
    """from_raw(raw(x)) is x, bit for bit."""
    datatype, array = case
    tensor = Tensor(datatype, array)
    assert equal_bits(Tensor.from_raw("x", datatype, array.shape, bytes(tensor.raw())), tensor)


@given(ELEMENTS)
def test_bytes_elements_round_trip(elements):
    """Any mix of bytes and missing elements survives its raw form."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    assert list(split_bytes("s", join_bytes(array), len(elements))) == elements


@given(st.binary(max_size=200), st.integers(0, 20))
def test_arbitrary_bytes_are_read_whole_or_refused(raw, count):
    """Garbage is either exactly that many elements or InvalidInput; nothing else."""
    try:
        elements = split_bytes("s", raw, count)
    except InvalidInput:
        return
    assert join_bytes(elements) == raw


@given(st.sampled_from(sorted(INTEGERS)), st.sampled_from(sorted(INTEGERS)), st.integers(-(2**63), 2**64 - 1))
def test_integer_casts_are_exact_or_refused(source, target, value):
    """An integer cast gives the same number or nothing."""
    limits = np.iinfo(source.dtype)
    if not limits.min <= value <= limits.max:
        return
    try:
        result = cast(np.array([value], source.dtype), source, target)
    except CastError:
        wide = np.iinfo(target.dtype)
        assert not wide.min <= value <= wide.max
        return
    assert int(result[0]) == value


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64]))
def test_integers_become_floats_only_exactly(value, target):
    """An integer becomes the float that equals it, or is refused."""
    try:
        result = cast(np.array([value], np.int64), Datatype.INT64, target)
    except CastError:
        return
    assert int(result.astype(np.float64)[0]) == value


@given(st.floats(), st.sampled_from(sorted(INTEGERS)))
def test_floats_become_integers_only_exactly(value, target):
    """A float becomes the integer that equals it, or is refused."""
    try:
        result = cast(np.array([value]), Datatype.FP64, target)
    except CastError:
        return
    assert float(int(result[0])) == value
