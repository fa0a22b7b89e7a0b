"""Numbers under which gateway processes keep their metrics, so that counters outlive the process that counted.

A slot is free again only once its owner has exited: two processes never write one file.
"""

from pathlib import Path
from typing import Final

_GAUGES_OF_THE_LIVING: Final = "gauge_live*_{slot}.db"


class Slots:
    """Hands out the lowest free slot; with replacements overlapping there are a few more than processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owned: set[int] = set()

    def take(self) -> int:
        """Return a free slot for a new process."""
        slot = next(number for number in range(len(self._owned) + 1) if number not in self._owned)
        self._owned.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Free the slot of a process that has exited: its counters stay, what it last gauged goes."""
        for file in self._folder.glob(_GAUGES_OF_THE_LIVING.format(slot=slot)):
            file.unlink(missing_ok=True)
        self._owned.discard(slot)
