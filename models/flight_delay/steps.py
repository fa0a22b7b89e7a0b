"""How a training program says how far it is: one line a step on stdout, read by the tour's progress bars."""

import re
from typing import Final, NamedTuple

_LINE: Final = re.compile(r"(\d+)/(\d+) (.+)")


class Step(NamedTuple):
    """One step of a training program, counted from 1."""

    number: int
    steps: int
    text: str


class Steps:
    """Counts and prints the steps of one program."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._number = 0

    def next(self, text: str) -> None:
        """Say that the next step begins."""
        self._number += 1
        print(f"{self._number}/{self._steps} {text}", flush=True)


def read(line: str) -> Step | None:
    """Return the step that a line tells, or None for any other output."""
    found = _LINE.fullmatch(line.strip())
    return Step(int(found[1]), int(found[2]), found[3]) if found else None
