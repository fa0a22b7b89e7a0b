"""How long to wait before a process that died is started again."""

from typing import Final

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 30.0
_HEALTHY_S: Final = 30.0


class Backoff:
    """At once after a healthy life; else half a second, doubling to 30 s."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def after(self, lived_s: float) -> float:
        """Return the seconds to wait now that a process has ended after `lived_s`."""
        if lived_s >= _HEALTHY_S:
            self._next_s = 0.0
        wait_s = self._next_s
        self._next_s = min(_LONGEST_S, max(_FIRST_S, wait_s * 2))
        return wait_s
