"""Numbers that outlive their process: a memory-mapped file in prometheus-client's multiprocess format.

prometheus-client reads and merges such files; its own writer takes a lock and a system call for each change, and
fixes one set of buckets for a whole histogram. Here a change is one 8-byte store. So each number has one writing
thread, and no two processes write one file: a slot is reused only once its owner has exited.

A store into a page that the disk has no room for would end the process (SIGBUS). So every byte is reserved before it
is mapped; a number that finds no room is kept in plain memory: it counts, and no scrape sees it.
"""

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from prometheus_client.mmap_dict import mmap_key

from turnout.core.tensor import Array

_FIRST_BYTES: Final = 1 << 16
_HEADER_BYTES: Final = 8
_VALUE_BYTES: Final = 16  # the value and a timestamp, which stays 0


class Doubles(Protocol):
    """Where numbers stand. `doubles` may be another view of the same numbers after each new one."""

    doubles: "memoryview[float]"


class _Memory:
    """Numbers that no file has room for."""

    __slots__ = ("doubles",)

    def __init__(self, count: int) -> None:
        self.doubles = memoryview(bytearray(8 * count)).cast("d")


class ValueFile:
    """A growing list of named doubles. Names that the file already holds keep their value: counters never fall.

    `on_lost` hears, for each call of `places` that finds no room, why.
    """

    def __init__(self, path: Path, on_lost: Callable[[OSError], None] = lambda _error: None) -> None:
        self.doubles: memoryview[float] = memoryview(b"").cast("d")
        self._path = path
        self._on_lost = on_lost
        self._descriptor = -1
        self._bytes: mmap.mmap | None = None
        self._used = _HEADER_BYTES
        self._places: dict[str, int] = {}

    def places(self, keys: Sequence[str]) -> tuple[Doubles, tuple[int, ...]]:
        """Return where the numbers of these keys stand, all in one place, making room at 0 for new ones."""
        try:
            mapped = self._opened()
            entries = {key: _entry(key) for key in keys if key not in self._places}
            mapped = self._with_room(mapped, sum(map(len, entries.values())))
        except OSError as error:
            self._on_lost(error)
            return _Memory(len(keys)), tuple(range(len(keys)))
        for key, entry in entries.items():
            self._append(mapped, key, entry)
        return self, tuple(self._places[key] for key in keys)

    def close(self) -> None:
        """Unmap the file; its numbers stay."""
        if self._bytes is not None:
            self.doubles.release()
            self._bytes.close()
            os.close(self._descriptor)

    def _opened(self) -> mmap.mmap:
        if self._bytes is not None:
            return self._bytes
        descriptor = _open(self._path)
        try:
            mapped = self._map(descriptor, _whole(os.fstat(descriptor).st_size))
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._used = struct.unpack_from("<i", mapped, 0)[0]
        self._read_places(mapped)
        return mapped

    def _map(self, descriptor: int, size: int) -> mmap.mmap:
        """Map `size` bytes of the file, all of them reserved. Raises OSError, with nothing changed."""
        os.posix_fallocate(descriptor, 0, size)
        self._bytes = mapped = mmap.mmap(descriptor, size)
        self.doubles = memoryview(mapped).cast("d")
        return mapped

    def _with_room(self, mapped: mmap.mmap, wanted: int) -> mmap.mmap:
        size = len(mapped)
        while self._used + wanted > size:
            size *= 2
        # Another thread may still hold the old view, which shows the same bytes.
        return mapped if size == len(mapped) else self._map(self._descriptor, size)

    def _append(self, mapped: mmap.mmap, key: str, entry: bytes) -> None:
        mapped[self._used : self._used + len(entry)] = entry
        self._used += len(entry)
        mapped[:4] = struct.pack("<i", self._used)  # last: a reader never sees half an entry
        self._places[key] = (self._used - _VALUE_BYTES) // 8

    def _read_places(self, mapped: mmap.mmap) -> None:
        at = _HEADER_BYTES
        while at < self._used:
            (length,) = struct.unpack_from("<i", mapped, at)
            key = mapped[at + 4 : at + 4 + length].decode()
            at += 4 + length + (8 - (length + 4) % 8)
            self._places[key] = at // 8
            at += _VALUE_BYTES


def _entry(key: str) -> bytes:
    encoded = key.encode()
    padded = encoded + b" " * (8 - (len(encoded) + 4) % 8)
    return struct.pack(f"<i{len(padded)}sdd", len(encoded), padded, 0.0, 0.0)


def _whole(size: int) -> int:
    """Return the size to map of a file: a step of growth that a full disk cut short does not count."""
    return max(size // _FIRST_BYTES, 1) * _FIRST_BYTES


def _open(path: Path) -> int:
    """Open a file, after putting an empty one in place whole: a scrape may come at any moment. Raises OSError."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        try:
            fresh.write_bytes(struct.pack("<i", _HEADER_BYTES).ljust(_FIRST_BYTES, b"\0"))
            fresh.rename(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


class Number:
    """One counter or gauge."""

    __slots__ = ("_home", "_place")

    def __init__(self, file: ValueFile, family: str, labels: Mapping[str, str], documentation: str) -> None:
        key = mmap_key(family.removesuffix("_total"), family, list(labels), list(labels.values()), documentation)
        self._home, (self._place,) = file.places([key])

    def add(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        self._home.doubles[self._place] += amount

    def set(self, value: float) -> None:
        """Replace the value."""
        self._home.doubles[self._place] = value

    def get(self) -> float:
        """Return the value."""
        return self._home.doubles[self._place]


class Distribution:
    """One histogram: counts by upper bound, and the sum. `bounds` ascend; the last bucket, infinity, is added."""

    __slots__ = ("bounds", "home", "places", "sum")

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
        self.bounds = tuple(bounds)
        buckets = [
            mmap_key(family, f"{family}_bucket", [*names, "le"], [*values, bound], documentation)
            for bound in (*(str(float(bound)) for bound in self.bounds), "+Inf")
        ]
        total = mmap_key(family, f"{family}_sum", names, values, documentation)
        self.home, (self.sum, *places) = file.places([total, *buckets])
        self.places = tuple(places)

    def observe(self, value: float) -> None:
        """Count one value."""
        doubles = self.home.doubles
        doubles[self.places[bisect_left(self.bounds, value)]] += 1.0
        doubles[self.sum] += value

    def observe_with(self, value: float, other: "Distribution", others: float) -> None:
        """Count one value here and one there: on the request path one call costs less than two."""
        doubles = self.home.doubles
        doubles[self.places[bisect_left(self.bounds, value)]] += 1.0
        doubles[self.sum] += value
        doubles = other.home.doubles
        doubles[other.places[bisect_left(other.bounds, others)]] += 1.0
        doubles[other.sum] += others

    def observe_all(self, values: Array) -> None:
        """Count each element of an array of finite numbers."""
        doubles = self.home.doubles
        buckets = np.searchsorted(np.asarray(self.bounds), values, side="left")
        for bucket, count in enumerate(np.bincount(buckets, minlength=len(self.places)).tolist()):
            if count:
                doubles[self.places[bucket]] += count
        doubles[self.sum] += float(values.sum())
