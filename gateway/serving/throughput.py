"""How fast a version gets rid of its rows, learned from those that left it. Pure: times come from outside.

Says what a newcomer has to expect behind those who are there. It must be cheap, and err on the side of letting in:
what it does not know yet takes no time.
"""

from typing import Final

# Who would be answered this close to its deadline is not let in: the estimate is one. Where many come too late all the
# same it grows, up to a bound, until about one of 200 does.
_MARGIN: Final = 1.25
_MOST_MARGIN: Final = 3.0
_LATE: Final = 1.25
_IN_TIME: Final = 1 - 0.005 * (_LATE - 1)
# What is remembered: about so many departures.
_MEMORY: Final = 32
_KEEP: Final = 1 - 1 / _MEMORY


class Throughput:
    """Busy seconds, rows that left in them, and how many rows were there: sums that forget."""

    __slots__ = ("_margin", "_rows", "_seconds", "_since_s", "_there", "_weight")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._rows = 0.0
        self._there = 0.0
        self._weight = 0.0
        self._since_s = 0.0
        self._margin = _MARGIN

    @property
    def row_s(self) -> float:
        """Seconds from one row that leaves to the next, while there is work; 0 before any left."""
        return self._seconds / self._rows if self._rows else 0.0

    def began(self, now_s: float) -> None:
        """Note that the first row came to an idle version."""
        self._since_s = now_s

    def left(self, rows: int, there: int, now_s: float) -> None:
        """Note that `rows` left, of the `there` that were there with them."""
        self._seconds = self._seconds * _KEEP + max(0.0, now_s - self._since_s)
        self._rows = self._rows * _KEEP + rows
        self._there = self._there * _KEEP + there
        self._weight = self._weight * _KEEP + 1.0
        self._since_s = now_s

    def judged(self, *, late: bool) -> None:
        """Note whether one that was let in behind others came in time."""
        self._margin = min(_MOST_MARGIN, self._margin * _LATE) if late else max(_MARGIN, self._margin * _IN_TIME)

    def expected_s(self, there: int) -> float:
        """Return how long the last of `there` rows takes to leave, with a margin.

        More rows than there have been lately may well be answered side by side: nothing is added for them.
        """
        if not self._weight:
            return 0.0
        known = self._there / self._weight
        return self.row_s * min(there, known * (1 + 2 / _MEMORY)) * self._margin
