"""When a gateway process asks its parent to be replaced."""

from types import SimpleNamespace

import pytest

from gateway.main import _Obedience
from gateway.parent.messages import Leaves
from gateway.serving.stages import Stage
from tests.fakes import entry
from turnout.core.manifest import Runtime


def _served(stage, runtime):
    return SimpleNamespace(stage=stage, entry=entry("m@1", runtime=runtime))


@pytest.fixture
async def obedience():
    """What a serving process has been told, and `said`, what it says."""
    said = []
    obedience = _Obedience(None, said.append, 5.0)
    obedience.serving = True
    obedience.said = said
    return obedience


async def test_a_call_that_hangs_has_the_process_replaced_once(obedience):
    """Its version is out of rotation meanwhile; the thread ends with the process only."""
    for _ in range(3):
        obedience.see(_served(Stage.LOST, Runtime.SKLEARN))
    assert obedience.said == [Leaves()]


@pytest.mark.parametrize(("stage", "runtime"), [(Stage.LOST, Runtime.PYTHON), (Stage.READY, Runtime.SKLEARN)])
async def test_other_steps_of_a_version_replace_nothing(obedience, stage, runtime):
    """A lost worker is the supervisor's, and all other steps are the version's own."""
    obedience.see(_served(stage, runtime))
    assert obedience.said == []
