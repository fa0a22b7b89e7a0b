"""Protobuf's wire form, as far as big tensors need it: raw contents cut out of a message, and put behind one.

Protobuf's own parser copies every `bytes` field twice; here received tensors stay views. Knows no message's meaning.
"""

from typing import Final

from turnout.core.tensor import Buffer

# A message with more top-level fields is left to protobuf's parser, which walks them faster.
_MAX_FIELDS: Final = 1024
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_LONG: Final = 0x80  # from here on a length takes more than a byte
_MAX_TAG: Final = 1 << 32
_MAX_VARINT: Final = 1 << 64


class _Odd(Exception):
    """Something that protobuf's own parser should judge."""


def split(message: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Return the message without its `bytes` fields called `number`, and views of those, in order.

    What is malformed, grouped or too finely cut comes back whole, with no views.
    """
    view = memoryview(message)
    kept: list[memoryview] = []
    found: list[memoryview] = []
    at = 0
    try:
        for _ in range(_MAX_FIELDS):
            if at == len(view):
                return b"".join(kept), found
            start = at
            tag, at = _varint(view, at, _MAX_TAG)
            at, body = _skip(view, at, tag & 7)
            if tag == number << 3 | _LENGTH:
                found.append(body)
            else:
                kept.append(view[start:at])
    except _Odd:
        pass
    return message, []


def leading_texts(message: bytes, count: int) -> list[str] | None:
    """Return fields 1 to `count`, each a short text or absent, where they stand in front as every client writes them.

    None for a message that begins otherwise. It says nothing of what stands behind.
    """
    found: list[str] = []
    at = 0
    for number in range(1, count + 1):
        if message[at : at + 1] != bytes((number << 3 | _LENGTH,)):
            found.append("")
            continue
        end = at + 2 + (message[at + 1] if at + 1 < len(message) else _LONG)
        if end - at - 2 >= _LONG or end > len(message):
            return None
        try:
            found.append(message[at + 2 : end].decode())
        except UnicodeDecodeError:
            return None
        at = end
    return found if at else None


def delimited(number: int, payload: Buffer) -> tuple[bytes, Buffer]:
    """Return the two parts of a length-delimited field: its tag and length, and its bytes."""
    length = len(payload)
    head = bytearray((number << 3 | _LENGTH,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head), payload


def _skip(view: memoryview, at: int, kind: int) -> tuple[int, memoryview]:
    """Return where the field ends, and its bytes where it is length-delimited."""
    if kind == _LENGTH:
        length, at = _varint(view, at, _MAX_VARINT)
        end = at + length
    elif kind == _VARINT:
        _, end = _varint(view, at, _MAX_VARINT)
    elif kind in _FIXED_SIZES:
        end = at + _FIXED_SIZES[kind]
    else:
        raise _Odd
    if end > len(view):
        raise _Odd
    return end, view[at:end]


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return a number below `end` and the position behind it."""
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= end:
                raise _Odd
            return value, at
        shift += 7
    raise _Odd
