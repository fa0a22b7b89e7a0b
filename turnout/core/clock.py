"""The one place that reads time. A deadline is an instant on the monotonic clock; durations end in `_s` or `_ms`."""

import time
from typing import Final

import msgspec

monotonic_s: Final = time.monotonic
wall_s: Final = time.time


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """An instant after which nobody waits for the answer."""

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline `seconds` from now."""
        return cls(monotonic_s() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at_s - monotonic_s()

    @property
    def passed(self) -> bool:
        """Whether the instant is over."""
        return self.left_s <= 0

    def earlier(self, other: "Deadline | None") -> "Deadline":
        """Return whichever comes first."""
        return self if other is None or self.at_s <= other.at_s else other
