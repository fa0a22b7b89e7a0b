"""When a version that keeps failing is asked no more, and when it is tried again. Pure: times come from outside.

It counts only what the version itself does wrong, one failure after another: a single good answer starts the count
anew. It never changes what a call that ran is told.
"""

import enum
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
# A version that was well for so long starts again with the first pause.
WELL_S: Final = 60.0


class State(enum.Enum):
    """`CLOSED`: calls pass. `OPEN`: none does. `HALF_OPEN`: one is under way, to find out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Opens after `failures` in a row (0: never), for a pause that doubles as long as trials fail.

    After the pause one call at a time is let through: a good answer closes it, a failure opens it again.
    """

    __slots__ = ("_pause_s", "_until_s", "_well_since_s", "failures", "state", "threshold")

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.state = State.CLOSED
        self.failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until_s = 0.0
        self._well_since_s = 0.0

    def failed(self, now_s: float) -> bool:
        """Note a failure; tell whether that opens it. Calls from before it opened change nothing any more."""
        if self.state is State.OPEN:
            return False
        self.failures += 1
        if self.state is State.CLOSED:
            if not self.threshold or self.failures < self.threshold:
                return False
            if now_s - self._well_since_s >= WELL_S:
                self._pause_s = FIRST_PAUSE_S
        self.state = State.OPEN
        self._until_s = now_s + self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return True

    def succeeded(self, now_s: float) -> bool:
        """Note a good answer; tell whether that closes it."""
        self.failures = 0
        if self.state is State.CLOSED:
            return False
        self.state = State.CLOSED
        self._well_since_s = now_s
        return True

    def tries(self, now_s: float) -> bool:
        """Tell whether a call may find out now how the version is; that call must say how it ended."""
        if self.state is not State.OPEN or now_s < self._until_s:
            return False
        self.state = State.HALF_OPEN
        return True

    def undecided(self) -> None:
        """Note that the call that was to find out told nothing: the next one may."""
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN

    def is_due(self, now_s: float) -> bool:
        """Tell whether `tries` would say yes."""
        return self.state is State.OPEN and now_s >= self._until_s

    def left_s(self, now_s: float) -> float:
        """Return how long until a call may be let through, as far as that is known."""
        return max(0.0, self._until_s - now_s)
