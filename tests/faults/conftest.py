"""The real thing for the fault tests too: `turnout serve` on free ports, and nothing of it stays."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import folder, serve, turnout
from tests.running import Turnout, serving, starter

__all__ = ["folder", "serve", "started", "turnout"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Callable[..., Turnout], Path]]:
    """Return a function that runs `turnout serve FOLDER` for a whole module, and an empty FOLDER."""
    place = tmp_path_factory.mktemp("faults")
    (place / "models").mkdir()
    with starter(place) as start:
        yield serving(start, place), place / "models"
