"""The quarantine rule: a version that was in flight at three losses of its worker within a minute is taken out."""

from collections import defaultdict, deque
from typing import Final

LOSSES: Final = 3
WITHIN_S: Final = 60.0
# Several processes report one loss; a worker cannot be restarted and lost again this soon.
_ONE_LOSS_S: Final = 0.5


class Losses:
    """Counts, by version, losses of a worker with calls in flight."""

    def __init__(self) -> None:
        self._at_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOSSES))

    def count(self, version: str, now_s: float) -> bool:
        """Note a loss that a process reports; tell, once, that the version is to be quarantined."""
        at_s = self._at_s[version]
        if at_s and now_s - at_s[-1] < _ONE_LOSS_S:
            return False
        at_s.append(now_s)
        return len(at_s) == LOSSES and now_s - at_s[0] <= WITHIN_S

    def forget(self, version: str) -> None:
        """Start again: the version is no longer held."""
        self._at_s.pop(version, None)
