"""Which version of a route answers a request: matches, sticky keys, weights. Pure: the draw comes from the caller."""

from array import array
from collections.abc import Mapping, Sequence

from turnout.core.request import CallerHeaders, Parameter
from turnout.core.snapshot import BUCKETS, Match, Sticky, Variant


def sticky_key(sticky: Sticky, headers: CallerHeaders, parameters: Mapping[str, Parameter]) -> str | None:
    """Return the request's sticky key as text; None when it is absent or empty, and the request is drawn alone."""
    if sticky.header is not None:
        return headers.get(sticky.header) or None
    value = parameters.get(sticky.parameter) if sticky.parameter is not None else None
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def is_match(match: Match, headers: CallerHeaders) -> bool:
    """Tell whether a request carries all of the match's headers."""
    return all(headers.get(name) == value for name, value in match.headers.items())


class Split:
    """The owner of each bucket. Raises ValueError unless every bucket has one owner and ranges add up to weights."""

    __slots__ = ("_owners",)

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._owners = array("H")
        owned = sorted((start, stop, index) for index, variant in enumerate(variants) for start, stop in variant.ranges)
        for start, stop, index in owned:
            if start != len(self._owners) or stop <= start:
                version = variants[index].version
                raise ValueError(f"{version}: range {start} to {stop} does not follow bucket {len(self._owners) - 1}")
            self._owners.extend(array("H", [index]) * (stop - start))
        if len(self._owners) != BUCKETS:
            raise ValueError(f"ranges hold {len(self._owners)} buckets of {BUCKETS}")
        for variant in variants:
            size = sum(stop - start for start, stop in variant.ranges)
            if size != variant.weight:
                raise ValueError(f"{variant.version}: ranges hold {size} buckets, its weight is {variant.weight}")

    def owner(self, number: int) -> int:
        """Return the index of the variant that owns a bucket."""
        return self._owners[number]
