"""Turns a change of weights into explicit bucket ranges, moving as few sticky keys as can be. Pure.

Every version that grows keeps all its buckets; every version that shrinks keeps some of its own and gains none. The
champion is where buckets come from and go back to: it gives its lowest first; any other version gives back the ones
that it took last.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from turnout.core.ids import VersionRef
from turnout.core.snapshot import BUCKETS, Variant

Ranges: TypeAlias = list[tuple[int, int]]


def spread(weights: Mapping[str, int], champion: str, previous: Sequence[Variant] = ()) -> tuple[Variant, ...]:
    """Return the variants of a route, its champion first; `weights` sum to 10,000, `previous` is what was published."""
    held = {variant.version: list(variant.ranges) for variant in previous}
    free: Ranges = [] if held else [(0, BUCKETS)]
    for version, ranges in held.items():
        surplus = max(0, size(ranges) - weights.get(version, 0))
        released, held[version] = _first(ranges, surplus) if version == champion else _last(ranges, surplus)
        free += released
    free = _merged(sorted(free))
    order = sorted(weights.keys() - {champion}, key=VersionRef.parse)
    for version in order:
        ranges = held.get(version, [])
        taken, free = _first(free, weights[version] - size(ranges))
        held[version] = _merged([*ranges, *taken])
    held[champion] = _merged(sorted([*held.get(champion, []), *free]))
    return tuple(Variant(version, weights.get(version, 0), tuple(held[version])) for version in (champion, *order))


def size(ranges: Iterable[tuple[int, int]]) -> int:
    """Return how many buckets the ranges hold."""
    return sum(end - start for start, end in ranges)


def _first(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """Cut the ranges after their first `count` buckets."""
    head: Ranges = []
    rest = list(ranges)
    while count > 0:
        start, end = rest.pop(0)
        cut = min(end, start + count)
        head.append((start, cut))
        count -= cut - start
        if cut < end:
            rest.insert(0, (cut, end))
    return head, rest


def _last(ranges: Ranges, count: int) -> tuple[Ranges, Ranges]:
    """Return the last `count` buckets, and the ranges without them."""
    kept, released = _first(ranges, size(ranges) - count)
    return released, kept


def _merged(ranges: Ranges) -> Ranges:
    """Join each range with the one before it where they touch."""
    merged: Ranges = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
