"""Tensors in the protocol's JSON form: text to one array and back. The one reader and writer of it for all planes.

Rules (FIELD 4.2): `data` is flat or nested like its shape, row-major. Nothing is coerced: booleans, numbers and
strings are themselves, `3.0` is no integer, `"1"` no number. `null` is NaN in FP32 and FP64 and a missing element in
BYTES. FP16 and BF16 have no JSON form. Numbers that the datatype cannot hold are refused, never wrapped or rounded
to infinity; a whole number in a floating-point tensor is read as the nearest double.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, NoReturn, TypeAlias

import msgspec
import numpy as np

from turnout.core.errors import InvalidInput, ModelFault, NonFinite
from turnout.core.tensor import DTYPES, Array, Datatype, Tensor

Json: TypeAlias = bytes | bytearray | memoryview | msgspec.Raw

BINARY_EXTENSION: Final = "the binary tensor extension or gRPC raw contents"
NON_FINITE_TOKEN: Final = re.compile(rb'(?<![\w"])-?(?:NaN|Infinity)\b')
NON_FINITE_HINT: Final = "NaN and Infinity are not JSON; send null for a missing number, or the binary extension"

# From half a step above the largest FP32 on, a double rounds to infinity.
_FP32_END: Final = 3.4028235677973366e38
_NESTED: Final = re.compile(rb"\s*\[\s*\[")
_WHERE: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\[(\d+)\]")
_PIECE_BYTES: Final = 128 * 1024
_LOOK_BYTES: Final = 1024
_PIECE_ELEMENTS: Final = 16 * 1024
_UINT64_MAX: Final = 2**64 - 1

_ENCODER: Final = msgspec.json.Encoder()


def element_type(datatype: Datatype) -> Any:
    """Return the strict type of one element, its range included where the decoder can check it."""
    if datatype is Datatype.BOOL:
        return bool
    if datatype is Datatype.BYTES:
        return str | None
    if datatype is Datatype.FP32:
        return Annotated[float, msgspec.Meta(gt=-_FP32_END, lt=_FP32_END)] | None
    if datatype is Datatype.FP64:
        return float | None
    if datatype is Datatype.UINT64:
        return Annotated[int, msgspec.Meta(ge=0)]  # the decoder's bounds end at int64: the array checks the upper one
    limits = np.iinfo(datatype.dtype)
    return Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]


DATATYPES: Final = tuple(datatype for datatype in Datatype if datatype not in (Datatype.FP16, Datatype.BF16))


@functools.cache
def _decoder(datatype: Datatype, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """Return the decoder of lists nested `depth` deep; at most one for each datatype and allowed rank."""
    kind: Any = element_type(datatype)
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


_FLAT: Final[dict[Datatype, Callable[[Json], list[Any]]]] = {
    datatype: _decoder(datatype, 1).decode for datatype in DATATYPES
}


def decode(name: str, datatype: Datatype, shape: tuple[int, ...], data: Json) -> Tensor:
    """Read `data` as tensor `name`. Raises InvalidInput (NonFinite) naming the tensor and the element or axis.

    `shape` must have been checked (`turnout.core.signature.check_shape`).
    """
    flat_decode = _FLAT.get(datatype)
    if flat_decode is None:
        raise no_json_form(name, datatype)
    nested = len(shape) > 1 and _NESTED.match(data) is not None
    if len(data) > 2 * _PIECE_BYTES and datatype is not Datatype.BYTES and not (nested and len(shape) > 2):
        array = _array_by_pieces(datatype, shape, memoryview(data), nested=nested)
        if array is not None:
            return Tensor(datatype, array)
    try:
        flat = flatten(name, _decoder(datatype, len(shape)).decode(data), shape) if nested else flat_decode(data)
    except msgspec.ValidationError as error:
        _refuse_element(name, datatype, shape, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_text(name, data, error)
    if len(flat) != math.prod(shape):
        raise wrong_count(name, shape, len(flat))
    return Tensor(datatype, _array(name, datatype, flat).reshape(shape))


def encode(tensor: Tensor, *, name: str, nonfinite_null: bool) -> bytes:
    """Return the flat JSON array of a tensor's elements; a missing BYTES element is `null`.

    Raises InvalidInput for what JSON cannot carry (FP16, BF16, bytes that are not UTF-8), ModelFault for a NaN or
    infinity unless `nonfinite_null` asks for `null` there.
    """
    datatype = tensor.datatype
    if datatype is Datatype.BYTES:
        return _ENCODER.encode(texts(tensor, name))
    if datatype not in _FLAT:
        raise no_json_form(name, datatype)
    flat = tensor.array.ravel()
    data = _ENCODER.encode(flat.tolist()) if flat.size <= _PIECE_ELEMENTS else _encode_pieces(flat)
    # The encoder writes a non-finite number as null, and numbers never hold that word otherwise.
    if not nonfinite_null and b"null" in data:
        raise non_finite(tensor, name)
    return data


def _encode_pieces(flat: Array) -> bytes:
    """Return the list of numbers, made in pieces between which other threads get their turn."""
    pieces = (flat[at : at + _PIECE_ELEMENTS].tolist() for at in range(0, flat.size, _PIECE_ELEMENTS))
    return b"[" + b",".join(_ENCODER.encode(piece)[1:-1] for piece in pieces) + b"]"


def texts(tensor: Tensor, name: str) -> list[str | None]:
    """Return the elements of a BYTES tensor as text, flat. Raises InvalidInput naming the first that is not UTF-8."""
    found: list[str | None] = []
    for index, element in enumerate(tensor.array.reshape(-1).tolist()):
        try:
            found.append(None if element is None else element.decode())
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"tensor '{name}': element {index} is not UTF-8 and has no JSON form; ask for it by {BINARY_EXTENSION}"
            ) from error
    return found


def flatten(name: str, nested: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Return the elements of lists nested like `shape`. Raises InvalidInput naming a ragged or ill-sized axis."""
    level: list[Any] = [nested]
    for axis, wanted in enumerate(shape):
        lengths = set(map(len, level))
        if len(lengths) > 1:
            shortest, longest = min(lengths), max(lengths)
            raise InvalidInput(f"tensor '{name}': data is ragged, axis {axis} has lengths from {shortest} to {longest}")
        if lengths and wanted not in lengths:
            raise InvalidInput(
                f"tensor '{name}': axis {axis} of the data has length {lengths.pop()}, "
                f"shape {list(shape)} says {wanted}"
            )
        level = list(itertools.chain.from_iterable(level))
    return level


def no_json_form(name: str, datatype: Datatype) -> InvalidInput:
    """Return the refusal of a datatype that JSON cannot carry."""
    return InvalidInput(f"tensor '{name}': {datatype} has no JSON form; use {BINARY_EXTENSION}")


def wrong_count(name: str, shape: tuple[int, ...], count: int) -> InvalidInput:
    """Return the refusal of data whose element count is not its shape's."""
    return InvalidInput(f"tensor '{name}': shape {list(shape)} takes {math.prod(shape)} elements, got {count}")


def out_of_range(name: str, index: int, datatype: Datatype) -> InvalidInput:
    """Return the refusal of an integer that its datatype cannot hold; `index` is the flat position."""
    return InvalidInput(f"tensor '{name}': element {index} is out of range for {datatype}")


def overflow(name: str, index: int, datatype: Datatype) -> NonFinite:
    """Return the refusal of a number too large for a floating-point datatype; `index` is the flat position."""
    return NonFinite(f"tensor '{name}': element {index} overflows {datatype}")


def non_finite(tensor: Tensor, name: str) -> ModelFault:
    """Return the fault of an answer with a NaN or infinity where JSON was asked for."""
    index = int(np.flatnonzero(~np.isfinite(tensor.array.reshape(-1)))[0])
    return ModelFault(f"tensor '{name}': element {index} of the answer is not finite, and JSON was asked for")


def texts_of(flat: list[str | None]) -> Array:
    """Return decoded strings as the elements of a BYTES tensor."""
    elements = np.empty(len(flat), dtype=object)
    elements[:] = [None if text is None else text.encode() for text in flat]
    return elements


def _array(name: str, datatype: Datatype, flat: list[Any]) -> Array:
    if datatype is Datatype.BYTES:
        return texts_of(flat)
    try:
        return np.array(flat, DTYPES[datatype])  # None becomes NaN here
    except OverflowError as error:
        index = next(index for index, value in enumerate(flat) if value > _UINT64_MAX)
        raise out_of_range(name, index, datatype) from error


def _array_by_pieces(datatype: Datatype, shape: tuple[int, ...], text: memoryview, *, nested: bool) -> Array | None:
    """Read many numbers piece by piece; None when something is wrong with them, which reading all at once will name.

    The decoder holds the interpreter for as long as a call takes, and needs ten times a number's room: so the calls
    are kept short.
    """
    count = math.prod(shape)
    at, stop = 1, _end(text)
    if bytes(text[:1]) != b"[" or bytes(text[stop : stop + 1]) != b"]" or count > len(text):
        return None
    read = _decoder(datatype, 2 if nested else 1).decode
    array = np.empty(count, datatype.dtype)
    filled = 0
    try:
        while at < stop:
            cut = _cut(text, at + _PIECE_BYTES, stop, nested=nested)
            piece = read(b"[" + text[at:cut] + b"]")
            if not piece or (nested and set(map(len, piece)) != {shape[1]}):
                return None
            flat = list(itertools.chain.from_iterable(piece)) if nested else piece
            if filled + len(flat) > count:
                return None
            array[filled : filled + len(flat)] = np.array(flat, datatype.dtype)
            filled += len(flat)
            at = cut + 1
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return None
    return array.reshape(shape) if filled == count else None


def _end(text: memoryview) -> int:
    """Return where the last character that is no white space stands."""
    stop = len(text) - 1
    while stop > 0 and text[stop] in b" \t\r\n":
        stop -= 1
    return stop


def _cut(text: memoryview, start: int, stop: int, *, nested: bool) -> int:
    """Return where the first comma between elements, or between rows of elements, stands from `start` on."""
    return _find(text, b",", _find(text, b"]", start, stop) if nested else start, stop)


def _find(text: memoryview, wanted: bytes, start: int, stop: int) -> int:
    """Return where `wanted` stands first from `start` on; `stop` where it does not."""
    for at in range(start, stop, _LOOK_BYTES):
        found = bytes(text[at : min(at + _LOOK_BYTES, stop)]).find(wanted)
        if found >= 0:
            return at + found
    return stop


def _refuse_element(name: str, datatype: Datatype, shape: tuple[int, ...], message: str) -> NoReturn:
    """Turn the decoder's complaint about one element into ours."""
    found = _WHERE.fullmatch(message)
    if found is None:
        raise InvalidInput(f"tensor '{name}': data must be a JSON array ({message})")
    what, steps = found[1], [int(step) for step in _STEP.findall(found[2])]
    index = _flat_index(steps, shape)
    if "`, got `" not in what:
        raise (overflow if datatype.is_float else out_of_range)(name, index, datatype)
    got = what.rpartition("got `")[2].rstrip("`")
    if got == "array":
        raise InvalidInput(f"tensor '{name}': data is nested deeper than shape {list(shape)}")
    if what.startswith("Expected `array`"):
        raise InvalidInput(f"tensor '{name}': data is ragged, axis {len(steps)} holds lists and {got}s")
    if got == "null":
        raise InvalidInput(f"tensor '{name}': element {index} is null; {datatype} takes no missing values")
    fix = " (3 is an integer, 3.0 is not)" if got == "float" else ""
    raise InvalidInput(f"tensor '{name}': element {index} must be {_KINDS[datatype]}, got {got}{fix}")


_KINDS: Final = {
    datatype: "true or false"
    if datatype is Datatype.BOOL
    else "a string"
    if datatype is Datatype.BYTES
    else "an integer"
    if datatype.is_integer
    else "a number"
    for datatype in Datatype
}


def _flat_index(steps: list[int], shape: tuple[int, ...]) -> int:
    """Return the row-major position of a nested element; a flat list has one step."""
    if len(steps) != len(shape):
        return steps[-1] if steps else 0
    index = 0
    for step, length in zip(steps, shape, strict=True):
        index = index * length + step
    return index


def _refuse_text(name: str, data: Json, error: Exception) -> NoReturn:
    """Refuse data that is no JSON at all."""
    if isinstance(error, RecursionError):
        raise InvalidInput(f"tensor '{name}': data is nested too deep") from error
    if isinstance(error, UnicodeDecodeError):
        raise InvalidInput(f"tensor '{name}': data is not UTF-8") from error
    if NON_FINITE_TOKEN.search(data):
        raise NonFinite(f"tensor '{name}': {NON_FINITE_HINT}") from error
    raise InvalidInput(f"tensor '{name}': data is no JSON array ({error})") from error
