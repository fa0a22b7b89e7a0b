"""Reads and writes the frames of docs/worker-protocol.md. It must not touch sockets or models.

Nothing but the standard library: a worker in somebody else's environment imports this file too.
"""

import enum
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

VERSION: Final = 1
MAX_PAYLOAD_BYTES: Final = 1 << 30
NO_DEADLINE: Final = 0xFFFFFFFF
MISSING_LENGTH: Final = 0xFFFFFFFF
MAX_RANK: Final = 32
HEADER: Final = struct.Struct("<IBBHQII")
CODES: Final = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "BF16": 11,
    "FP32": 12,
    "FP64": 13,
    "BYTES": 14,
}
NAMES: Final = {code: name for name, code in CODES.items()}
BYTES: Final = "BYTES"
_BOOL: Final = 1
_BYTES: Final = 14
# Bytes of one element by datatype code; 0 for BYTES, whose elements tell their own.
_ITEM_BYTES: Final = (0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 0)
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_CODE_RANK: Final = struct.Struct("<BB")
_AXES: Final = tuple(struct.Struct(f"<{rank}qQ") for rank in range(MAX_RANK + 1))


class FrameType(enum.IntEnum):
    """What a frame says."""

    HELLO = 1
    LOAD = 2
    LOADED = 3
    DESCRIBE = 4
    PREDICT = 5
    RESULT = 6
    ERROR = 7
    PING = 8
    PONG = 9
    CANCEL = 10
    DRAIN = 11


class BadFrame(Exception):
    """Bytes that are no frame. `code` is the ERROR that answers them, `id` the request they belong to, if known."""

    def __init__(self, reason: str, *, code: str = "bad_frame", id: int = 0) -> None:  # noqa: A002  the wire's word
        super().__init__(reason)
        self.code = code
        self.id = id


class Part(NamedTuple):
    """One tensor of a payload. `datatype` is a name of the table, `data` the raw form."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class Frame(NamedTuple):
    """One frame as it came."""

    type: int
    id: int
    deadline_ms: int
    payload: memoryview


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._needed = HEADER.size

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """Yield the frames that are whole now. Raises BadFrame for a frame of another version or over the limit."""
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data, self._kept = self._kept, bytearray()
        view = memoryview(data)
        at = 0
        while len(view) - at >= HEADER.size:
            length, kind, version, _, request, deadline_ms, _ = HEADER.unpack_from(view, at)
            if version != VERSION:
                raise BadFrame(f"protocol version {version}, this is {VERSION}", code="unsupported", id=request)
            if length > MAX_PAYLOAD_BYTES:
                raise BadFrame(f"a payload of {length} bytes is over the limit of {MAX_PAYLOAD_BYTES}", id=request)
            end = at + HEADER.size + length
            if end > len(view):
                break
            yield Frame(kind, request, deadline_ms, view[at + HEADER.size : end])
            at = end
        self._keep(view[at:])

    def _keep(self, rest: memoryview) -> None:
        if len(rest):
            self._kept = bytearray(rest)
            whole = HEADER.size + _U32.unpack_from(rest)[0] if len(rest) >= HEADER.size else HEADER.size
            self._needed = whole


def pack(kind: FrameType, request: int, parts: Sequence[Part] | None = None, deadline_ms: int = 0) -> list[Buffer]:
    """Return a frame as buffers to write one after another. Raises ValueError when it is over the limit."""
    pieces: list[Buffer] = [b""]
    if parts is not None:
        pieces.append(_U32.pack(len(parts)))
        for part in parts:
            pieces.append(_part_header(part))
            pieces.append(part.data)
    length = sum(map(len, pieces))
    if length > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {length} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    pieces[0] = HEADER.pack(length, kind, VERSION, 0, request, deadline_ms, 0)
    return pieces


def unpack(frame: Frame) -> list[Part]:
    """Return the tensors of a payload, as views of it. Raises BadFrame where they do not add up."""
    try:
        return list(_parts(frame.payload))
    except (struct.error, UnicodeDecodeError) as error:
        raise BadFrame(f"the payload is cut off or garbled: {error}", id=frame.id) from error
    except BadFrame as error:
        raise BadFrame(str(error), id=frame.id) from error


def text(name: str, value: str) -> Part:
    """Return a BYTES `[1]` tensor of one text."""
    return Part(name, BYTES, (1,), join_elements([value.encode()]))


def table(name: str, rows: Sequence[Sequence[str]], width: int) -> Part:
    """Return a BYTES `[n, width]` tensor of texts."""
    return Part(name, BYTES, (len(rows), width), join_elements(cell.encode() for row in rows for cell in row))


def texts_of(part: Part) -> list[str]:
    """Return the elements of a BYTES tensor as text. Raises BadFrame for any other tensor."""
    if part.datatype != BYTES:
        raise BadFrame(f"'{part.name}' must be BYTES, got {part.datatype}")
    found = split_elements(part.data, math.prod(part.shape))
    try:
        return [(element or b"").decode() for element in found]
    except UnicodeDecodeError as error:
        raise BadFrame(f"'{part.name}' is not UTF-8") from error


def rows_of(part: Part, width: int) -> list[list[str]]:
    """Return the rows of a table. Raises BadFrame when it has another width."""
    if len(part.shape) != 2 or part.shape[1] != width:
        raise BadFrame(f"'{part.name}' must be a table of {width} columns, got shape {list(part.shape)}")
    cells = texts_of(part)
    return [cells[at : at + width] for at in range(0, len(cells), width)]


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as `-1,30`."""
    return ",".join(map(str, shape))


def shape_of(written: str) -> tuple[int, ...]:
    """Read a shape written as `-1,30`. Raises BadFrame."""
    try:
        return tuple(int(axis) for axis in written.split(",")) if written else ()
    except ValueError as error:
        raise BadFrame(f"{written!r} is not a shape") from error


def split_elements(data: Buffer, count: int) -> list[bytes | None]:
    """Cut the raw form of a BYTES tensor into its elements. Raises BadFrame when the lengths do not add up."""
    view = memoryview(data)
    elements: list[bytes | None] = []
    at = 0
    if len(view) < 4 * count:
        raise BadFrame(f"{count} BYTES elements in {len(view)} bytes")
    for _ in range(count):
        if at + 4 > len(view):
            raise BadFrame("a BYTES element has no length")
        (length,) = _U32.unpack_from(view, at)
        at += 4
        if length == MISSING_LENGTH:
            elements.append(None)
            continue
        if at + length > len(view):
            raise BadFrame("a BYTES element is longer than what is left")
        elements.append(bytes(view[at : at + length]))
        at += length
    if at != len(view):
        raise BadFrame(f"{len(view) - at} bytes left over after {count} BYTES elements")
    return elements


def join_elements(elements: Iterable[bytes | None]) -> bytes:
    """Return the raw form of BYTES elements."""
    pieces: list[bytes] = []
    for element in elements:
        pieces.append(_U32.pack(MISSING_LENGTH if element is None else len(element)))
        pieces.append(element or b"")
    return b"".join(pieces)


def _part_header(part: Part) -> bytes:
    name = part.name.encode()
    rank = len(part.shape)
    axes = _AXES[rank].pack(*part.shape, len(part.data))
    return b"".join((_U16.pack(len(name)), name, _CODE_RANK.pack(CODES[part.datatype], rank), axes))


def _parts(view: memoryview) -> Iterator[Part]:
    (count,) = _U32.unpack_from(view)
    at = 4
    seen: set[str] = set()
    for _ in range(count):
        (name_bytes,) = _U16.unpack_from(view, at)
        name = str(_slice(view, at + 2, name_bytes), "utf-8")
        at += 2 + name_bytes
        code, rank = _CODE_RANK.unpack_from(view, at)
        if code not in NAMES or rank > MAX_RANK:
            raise BadFrame(f"tensor '{name}': datatype code {code}, rank {rank}")
        *shape, length = _AXES[rank].unpack_from(view, at + 2)
        at += 2 + _AXES[rank].size
        data = _slice(view, at, length)
        at += length
        if name in seen:
            raise BadFrame(f"tensor '{name}' comes twice")
        seen.add(name)
        yield _checked(Part(name, NAMES[code], tuple(shape), data), code)
    if at != len(view):
        raise BadFrame(f"{len(view) - at} bytes left over after {count} tensors")


def _slice(view: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(view):
        raise BadFrame(f"{length} bytes wanted, {len(view) - at} are left")
    return view[at : at + length]


def _checked(part: Part, code: int) -> Part:
    if part.shape and min(part.shape) < 0:
        raise BadFrame(f"tensor '{part.name}': negative axis in {list(part.shape)}")
    count = math.prod(part.shape)
    if code == _BYTES:
        if len(part.data) < 4 * count:
            raise BadFrame(f"tensor '{part.name}': {count} BYTES elements in {len(part.data)} bytes")
    elif len(part.data) != count * _ITEM_BYTES[code]:
        raise BadFrame(f"tensor '{part.name}': {part.datatype} {list(part.shape)} in {len(part.data)} bytes")
    if code == _BOOL and bytes(part.data).translate(None, b"\x00\x01"):
        raise BadFrame(f"tensor '{part.name}': BOOL bytes must be 0 or 1")
    return part
