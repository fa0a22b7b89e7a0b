"""Typed buffers: views, raw forms, refusals."""

import numpy as np
import pytest

from turnout.core.errors import InvalidInput
from turnout.core.tensor import Datatype, Tensor, equal_bits, join_bytes, split_bytes


def test_fixed_size_tensor_is_a_view_of_the_received_bytes():
    """No copy is made of received numbers."""
    raw = memoryview(bytearray(np.arange(6, dtype="<f4").tobytes()))
    tensor = Tensor.from_raw("x", Datatype.FP32, (2, 3), raw)
    assert np.shares_memory(tensor.array, np.frombuffer(raw, np.uint8))
    assert tensor.raw() is raw


@pytest.mark.parametrize("size", [0, 15, 17])
def test_wrong_size_is_refused_by_name(size):
    """Bytes that do not fit the shape name the tensor and both sizes."""
    with pytest.raises(InvalidInput, match=rf"tensor 'x': INT64 of shape \[2\] takes 16 bytes, got {size}"):
        Tensor.from_raw("x", Datatype.INT64, (2,), bytes(size))


def test_bool_bytes_other_than_zero_and_one_are_refused():
    """A BOOL byte is 0 or 1."""
    with pytest.raises(InvalidInput, match="tensor 'b': BOOL bytes must be 0 or 1"):
        Tensor.from_raw("b", Datatype.BOOL, (2,), b"\x00\x02")


def test_bytes_elements_keep_every_byte():
    """Empty strings, NUL and non-text bytes survive; a missing element is not an empty one."""
    elements = np.array([b"", b"\x00", b"\xff\xfe", None, "π".encode()], dtype=object)
    back = split_bytes("s", join_bytes(elements), 5)
    assert list(back) == list(elements)


@pytest.mark.parametrize(
    ("raw", "count", "reason"),
    [
        (b"", 1, "need 4 bytes of lengths"),
        (b"\x02\x00\x00\x00a", 1, "element 0 has length 2, only 1 bytes are left"),
        (b"\x01\x00\x00\x00ab", 1, "1 bytes are left over"),
        (b"\x05\x00\x00\x00abcd\x00\x00\x00\x00", 2, "element 1 has no length|element 1 has length|left"),
        (b"\xfe\xff\xff\xff", 1, "element 0 has length 4294967294"),
    ],
)
def test_broken_lengths_are_refused_by_name(raw, count, reason):
    """Lengths that do not add up never read beyond the bytes."""
    with pytest.raises(InvalidInput, match=f"tensor 's': .*({reason})"):
        split_bytes("s", raw, count)


def test_bits_are_compared_not_values():
    """NaN equals NaN and -0.0 differs from 0.0."""
    nan = Tensor.of(np.array([np.nan]))
    assert equal_bits(nan, Tensor.of(np.array([np.nan])))
    assert not equal_bits(Tensor.of(np.array([0.0])), Tensor.of(np.array([-0.0])))


def test_text_arrays_become_bytes():
    """Arrays of text, and of objects with missing values, are BYTES."""
    assert list(Tensor.of(np.array(["a", "é"])).array) == [b"a", "é".encode()]
    assert list(Tensor.of(np.array(["a", None, float("nan")], dtype=object)).array) == [b"a", None, None]


def test_a_dtype_outside_the_protocol_is_refused():
    """Complex numbers have no datatype."""
    with pytest.raises(TypeError, match="complex128"):
        Tensor.of(np.array([1j]))


def test_big_endian_arrays_are_converted():
    """The raw form is little-endian whatever the array was."""
    assert bytes(Tensor.of(np.array([1], dtype=">i4")).raw()) == b"\x01\x00\x00\x00"


def test_empty_tensor_has_empty_raw_form():
    """Zero rows are zero bytes."""
    assert bytes(Tensor.of(np.empty((0, 3), np.float32)).raw()) == b""


def test_non_contiguous_array_gives_row_major_bytes():
    """A transposed view is written in its own logical order."""
    array = np.arange(6, dtype=np.int8).reshape(2, 3).T
    assert bytes(Tensor(Datatype.INT8, array).raw()) == array.tobytes()


def test_repr_hides_values():
    """Values may be private."""
    assert repr(Tensor.of(np.array([42]))) == "Tensor(INT64, [1])"
