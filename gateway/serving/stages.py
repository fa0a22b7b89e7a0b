"""The life of a loaded version as one table. Pure: it knows which step may follow which, never why one is taken."""

import enum
from typing import Final

from turnout.core.report import VersionState


class Stage(enum.Enum):
    """Where a version is in its life.

    `LOST`: it was loaded and its worker is gone; it is back once a fresh worker passes the golden file again.
    `DRAINING`: it left the snapshot; what was begun is finished.
    """

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    LOST = "lost"
    FAILED = "failed"
    DRAINING = "draining"
    UNLOADED = "unloaded"


NEXT: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.LOADING: frozenset({Stage.WARMING, Stage.FAILED, Stage.DRAINING}),
    Stage.WARMING: frozenset({Stage.READY, Stage.LOST, Stage.FAILED, Stage.DRAINING}),
    Stage.READY: frozenset({Stage.LOST, Stage.FAILED, Stage.DRAINING}),
    Stage.LOST: frozenset({Stage.READY, Stage.FAILED, Stage.DRAINING}),
    Stage.FAILED: frozenset({Stage.DRAINING}),
    Stage.DRAINING: frozenset({Stage.UNLOADED}),
    Stage.UNLOADED: frozenset(),
}
REPORTED: Final[dict[Stage, VersionState]] = {
    Stage.LOADING: VersionState.LOADING,
    Stage.WARMING: VersionState.LOADING,
    Stage.READY: VersionState.READY,
    Stage.LOST: VersionState.LOST,
    Stage.FAILED: VersionState.FAILED,
}


class IllegalStep(Exception):
    """A step that the table does not know: a fault of this program."""


def step(old: Stage, new: Stage) -> Stage:
    """Return `new`. Raises IllegalStep when it may not follow `old`."""
    if new not in NEXT[old]:
        raise IllegalStep(f"{old.value} cannot become {new.value}")
    return new
