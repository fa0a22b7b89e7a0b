"""Typed buffers in the protocol's datatypes. Views over received bytes where possible; never a Python list of numbers.

Raw form (OIP binary extension): little-endian, row-major; BOOL one byte 0 or 1; BYTES elements each behind a
4-byte little-endian length. The length 0xFFFFFFFF, which no real element can have, marks a missing element.
"""

import enum
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import ml_dtypes
import msgspec
import numpy as np
import numpy.typing as npt

from turnout.core.errors import InvalidInput

Array: TypeAlias = npt.NDArray[Any]
Buffer: TypeAlias = bytes | bytearray | memoryview

MISSING_LENGTH: Final = 0xFFFFFFFF
MAX_RANK: Final = 32
# Up to here a copy costs less than the view.
_COPIED_BYTES: Final = 1024
MAX_ELEMENTS: Final = 1 << 40


class Datatype(enum.StrEnum):
    """The datatypes of the Open Inference Protocol v2, and BF16 as Triton has it."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of one element; `object` for BYTES."""
        return DTYPES[self]

    @property
    def is_integer(self) -> bool:
        """Whether it is one of the eight integer datatypes."""
        return self in INTEGERS

    @property
    def is_float(self) -> bool:
        """Whether it is one of the four floating-point datatypes."""
        return self in FLOATS


DTYPES: Final[dict[Datatype, np.dtype[Any]]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.BF16: np.dtype(ml_dtypes.bfloat16),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}
DATATYPES: Final[dict[np.dtype[Any], Datatype]] = {dtype: datatype for datatype, dtype in DTYPES.items()}
INTEGERS: Final = frozenset(d for d in Datatype if d.startswith(("INT", "UINT")))
FLOATS: Final = frozenset({Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64})


class Tensor(msgspec.Struct, eq=False, gc=False):
    """A datatype, a shape and its elements: an array, C-contiguous; for BYTES an object array of `bytes | None`.

    An array made from received bytes is a read-only view of them, valid as long as somebody holds it.
    """

    datatype: Datatype
    array: Array
    _raw: Buffer | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.array.shape

    @classmethod
    def of(cls, array: Array) -> "Tensor":
        """Wrap an array, choosing the datatype from its dtype (object, str and bytes arrays are BYTES).

        Raises TypeError when no datatype of the protocol holds such elements.
        """
        if array.dtype.kind in "USOT":
            return cls(Datatype.BYTES, _as_bytes(array))
        datatype = DATATYPES.get(array.dtype.newbyteorder("<"))
        if datatype is None:
            raise TypeError(f"no datatype of the protocol holds {array.dtype}")
        return cls(datatype, np.ascontiguousarray(array, dtype=datatype.dtype).reshape(array.shape))

    @classmethod
    def from_raw(cls, name: str, datatype: Datatype, shape: Sequence[int], raw: Buffer) -> "Tensor":
        """View raw bytes as a tensor. Raises InvalidInput naming tensor `name` when size or content do not fit."""
        count = math.prod(shape)
        if datatype is Datatype.BYTES:
            return cls(datatype, split_bytes(name, raw, count).reshape(shape), raw)
        dtype = DTYPES[datatype]
        if len(raw) != count * dtype.itemsize:
            raise InvalidInput(
                f"tensor '{name}': {datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes, "
                f"got {len(raw)}"
            )
        if datatype is Datatype.BOOL:
            flags = np.frombuffer(raw, np.uint8)
            if flags.size and flags.max() > 1:
                raise InvalidInput(f"tensor '{name}': BOOL bytes must be 0 or 1")
            return cls(datatype, flags.view(np.bool_).reshape(shape), raw)
        return cls(datatype, np.frombuffer(raw, dtype).reshape(shape), raw)

    @classmethod
    def stacked(cls, tensors: Sequence["Tensor"]) -> "Tensor":
        """Return the rows of all in one tensor, by one copy. They differ in nothing but their rows."""
        datatype = tensors[0].datatype
        raw = None
        if datatype is Datatype.BYTES:
            received = [tensor._raw for tensor in tensors if tensor._raw is not None]  # noqa: SLF001  its own class
            raw = b"".join(received) if len(received) == len(tensors) else None
        return cls(datatype, np.concatenate([tensor.array for tensor in tensors]), raw)

    @property
    def rows(self) -> int:
        """Length of axis 0; 1 for a scalar."""
        shape = self.array.shape
        return shape[0] if shape else 1

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take in memory, roughly."""
        if self.datatype is not Datatype.BYTES:
            return self.array.nbytes
        return self.array.size * 8 + sum(len(element) for element in self.array.reshape(-1) if element is not None)

    def raw(self) -> Buffer:
        """Return the raw little-endian form, without a copy where the bytes were received, or are many in one piece."""
        if self._raw is not None:
            return self._raw
        if self.datatype is Datatype.BYTES:
            return join_bytes(self.array)
        if self.array.nbytes <= _COPIED_BYTES:
            return self.array.tobytes()
        return np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data

    def aligned(self) -> "Tensor":
        """Return the tensor itself unless its numbers start at an odd address, which native runtimes must not get."""
        if self.array.flags.aligned:
            return self
        return Tensor(self.datatype, self.array.copy(), self.raw())

    def reshaped(self, shape: Sequence[int]) -> "Tensor":
        """Return the same elements under another shape of equal size."""
        return Tensor(self.datatype, self.array.reshape(shape), self._raw)

    def row_slice(self, start: int, stop: int) -> "Tensor":
        """Return rows `start` to `stop` as a view."""
        return Tensor(self.datatype, self.array[start:stop])

    def __repr__(self) -> str:
        """Return datatype and shape; never the values, which may be private."""
        return f"Tensor({self.datatype}, {list(self.shape)})"


TensorMap: TypeAlias = Mapping[str, Tensor]


def equal_bits(left: Tensor, right: Tensor) -> bool:
    """Tell whether datatype, shape and every bit agree (so NaN equals NaN, and -0.0 differs from 0.0)."""
    return left.datatype is right.datatype and left.shape == right.shape and bytes(left.raw()) == bytes(right.raw())


def split_bytes(name: str, raw: Buffer, count: int) -> Array:
    """Cut length-prefixed elements into an object array of `bytes | None`.

    Raises InvalidInput naming tensor `name` when the lengths do not add up to `raw` or to `count` elements.
    """
    view = memoryview(raw)
    if len(view) < 4 * count:
        raise InvalidInput(
            f"tensor '{name}': {count} BYTES elements need {4 * count} bytes of lengths, got {len(view)} in all"
        )
    elements = np.empty(count, dtype=object)
    at = 0
    unpack = struct.Struct("<I").unpack_from
    for index in range(count):
        if at + 4 > len(view):
            raise InvalidInput(f"tensor '{name}': element {index} has no length, the bytes end before it")
        (length,) = unpack(view, at)
        at += 4
        if length == MISSING_LENGTH:
            elements[index] = None
            continue
        if at + length > len(view):
            raise InvalidInput(
                f"tensor '{name}': element {index} has length {length}, only {len(view) - at} bytes are left"
            )
        elements[index] = bytes(view[at : at + length])
        at += length
    if at != len(view):
        raise InvalidInput(f"tensor '{name}': {len(view) - at} bytes are left over after {count} elements")
    return elements


def join_bytes(elements: Array) -> bytes:
    """Return the raw form of an object array of `bytes | None`."""
    parts: list[bytes] = []
    pack = struct.Struct("<I").pack
    for element in elements.reshape(-1):
        if element is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts.append(pack(len(element)))
            parts.append(element)
    return b"".join(parts)


def _as_bytes(array: Array) -> Array:
    """Turn str, bytes and None elements into `bytes | None`."""
    flat = array.reshape(-1)
    elements = np.empty(flat.size, dtype=object)
    for index, element in enumerate(flat):
        elements[index] = _element_bytes(element)
    return elements.reshape(array.shape)


def _element_bytes(element: object) -> bytes | None:
    if element is None or isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, float) and math.isnan(element):
        return None  # pandas and scikit-learn write a missing string as NaN
    raise TypeError(f"a BYTES element must be text or bytes, got {type(element).__name__}")
