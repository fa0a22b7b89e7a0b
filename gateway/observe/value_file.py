"""Numbers that outlive their process: a memory-mapped file in prometheus-client's multiprocess format.

prometheus-client reads and merges such files; its own writer takes a lock and a system call for each change, and
fixes one set of buckets for a whole histogram. Here a change is one 8-byte store. So each number has one writing
thread, and no two processes write one file: a slot is reused only once its owner has exited.
"""

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from prometheus_client.mmap_dict import mmap_key

from turnout.core.tensor import Array

_FIRST_BYTES: Final = 1 << 16
_HEADER_BYTES: Final = 8
_VALUE_BYTES: Final = 16  # the value and a timestamp, which stays 0


class ValueFile:
    """A growing list of named doubles. Names that the file already holds keep their value: counters never fall."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _open(path)
        self._places: dict[str, int] = {}
        self._map(os.fstat(self._descriptor).st_size)
        self._used: int = struct.unpack_from("<i", self._bytes, 0)[0]
        self._read_places()

    def place(self, key: str) -> int:
        """Return where in `doubles` the number of this key stands, making room at 0 for a new one."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._append(key)
        return place

    def close(self) -> None:
        """Unmap the file; its numbers stay."""
        self.doubles.release()
        self._bytes.close()
        os.close(self._descriptor)

    def _map(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._bytes = mmap.mmap(self._descriptor, size)
        self.doubles = memoryview(self._bytes).cast("d")

    def _append(self, key: str) -> int:
        encoded = key.encode()
        padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
        entry = struct.pack(f"<i{len(padded)}sdd", len(encoded), padded, 0.0, 0.0)
        size = len(self._bytes)
        while self._used + len(entry) > size:
            size *= 2
        if size != len(self._bytes):
            self._map(size)  # another thread may still hold the old view, which shows the same bytes
        self._bytes[self._used : self._used + len(entry)] = entry
        self._used += len(entry)
        self._write_used()  # last: a reader never sees half an entry
        return (self._used - _VALUE_BYTES) // 8

    def _write_used(self) -> None:
        self._bytes[:4] = struct.pack("<i", self._used)

    def _read_places(self) -> None:
        at = _HEADER_BYTES
        while at < self._used:
            (length,) = struct.unpack_from("<i", self._bytes, at)
            key = self._bytes[at + 4 : at + 4 + length].decode()
            at += 4 + length + (8 - (length + 4) % 8)
            self._places[key] = at // 8
            at += _VALUE_BYTES


def _open(path: Path) -> int:
    """Open a file, after putting an empty one in place whole: a scrape may come at any moment."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_bytes(struct.pack("<i", _HEADER_BYTES).ljust(_FIRST_BYTES, b"\0"))
        fresh.rename(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


class Number:
    """One counter or gauge."""

    __slots__ = ("_file", "_place")

    def __init__(self, file: ValueFile, family: str, labels: Mapping[str, str], documentation: str) -> None:
        key = mmap_key(family.removesuffix("_total"), family, list(labels), list(labels.values()), documentation)
        self._file = file
        self._place = file.place(key)

    def add(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        self._file.doubles[self._place] += amount

    def set(self, value: float) -> None:
        """Replace the value."""
        self._file.doubles[self._place] = value

    def get(self) -> float:
        """Return the value."""
        return self._file.doubles[self._place]


class Distribution:
    """One histogram: counts by upper bound, and the sum. `bounds` ascend; the last bucket, infinity, is added."""

    __slots__ = ("_bounds", "_file", "_places", "_sum")

    def __init__(
        self,
        file: ValueFile,
        family: str,
        labels: Mapping[str, str],
        documentation: str,
        bounds: Sequence[float],
    ) -> None:
        if not all(low < high for low, high in pairwise(bounds)):
            raise ValueError(f"{family}: bucket bounds must ascend, got {list(bounds)}")
        names, values = list(labels), list(labels.values())
        self._file = file
        self._bounds = tuple(bounds)
        self._sum = file.place(mmap_key(family, f"{family}_sum", names, values, documentation))
        self._places = tuple(
            file.place(mmap_key(family, f"{family}_bucket", [*names, "le"], [*values, bound], documentation))
            for bound in (*(str(float(bound)) for bound in self._bounds), "+Inf")
        )

    def observe(self, value: float) -> None:
        """Count one value."""
        doubles = self._file.doubles
        doubles[self._places[bisect_left(self._bounds, value)]] += 1.0
        doubles[self._sum] += value

    def observe_all(self, values: Array) -> None:
        """Count each element of an array of finite numbers."""
        doubles = self._file.doubles
        buckets = np.searchsorted(np.asarray(self._bounds), values, side="left")
        for bucket, count in enumerate(np.bincount(buckets, minlength=len(self._places)).tolist()):
            if count:
                doubles[self._places[bucket]] += count
        doubles[self._sum] += float(values.sum())
