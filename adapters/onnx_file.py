"""Reads from an ONNX file what ONNX Runtime does not tell: which inputs and outputs have no rank.

The runtime shows `[]` for a scalar and for a tensor of unknown rank alike. Only the few protobuf fields on the way
are walked; weights are skipped, not read.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GRAPH: Final = 7  # ModelProto.graph
_INPUT: Final = 11  # GraphProto.input
_OUTPUT: Final = 12  # GraphProto.output
_NAME: Final = 1  # ValueInfoProto.name
_TYPE: Final = 2  # ValueInfoProto.type
_TENSOR: Final = 1  # TypeProto.tensor_type
_SHAPE: Final = 2  # TypeProto.Tensor.shape
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def unranked(path: Path) -> frozenset[str]:
    """Return the names of graph inputs and outputs without a shape. Raises ValueError where it is no protobuf."""
    if not path.stat().st_size:
        return frozenset()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(_unranked(data))


def _unranked(data: mmap.mmap) -> Iterator[str]:
    for graph in _fields(data, (0, len(data)), _GRAPH):
        for number in (_INPUT, _OUTPUT):
            for value in _fields(data, graph, number):
                names = [data[start:end].decode() for start, end in _fields(data, value, _NAME)]
                if names and not _has_shape(data, value):
                    yield names[-1]


def _has_shape(data: mmap.mmap, value: tuple[int, int]) -> bool:
    return any(
        True
        for kind in _fields(data, value, _TYPE)
        for tensor in _fields(data, kind, _TENSOR)
        for _ in _fields(data, tensor, _SHAPE)
    )


def _fields(data: mmap.mmap, span: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each length-delimited field `wanted` of the message in `span`."""
    at, end = span
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            if key >> 3 == wanted:
                yield at, min(at + length, end)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("not a protobuf")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("not a protobuf")
