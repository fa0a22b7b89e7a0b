"""The table of a version's life: every walk through it ends, and only loaded versions are ready."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.stages import NEXT, REPORTED, IllegalStep, Stage, step
from turnout.core.report import VersionState


@given(st.lists(st.sampled_from(list(Stage)), max_size=30))
def test_any_walk_stays_within_the_table(wanted):
    """Whatever steps are tried, the stage changes only as the table allows, and UNLOADED is final."""
    stage, passed = Stage.LOADING, [Stage.LOADING]
    for new in wanted:
        if new in NEXT[stage]:
            stage = step(stage, new)
            passed.append(stage)
        else:
            with pytest.raises(IllegalStep):
                step(stage, new)
    if Stage.READY in passed:
        assert Stage.WARMING in passed[: passed.index(Stage.READY)]
    if Stage.UNLOADED in passed:
        assert passed[-2:] == [Stage.DRAINING, Stage.UNLOADED]
        assert passed.count(Stage.UNLOADED) == 1
    if Stage.FAILED in passed:
        assert Stage.READY not in passed[passed.index(Stage.FAILED) :]


def test_every_stage_can_end_and_is_reported():
    """From each stage there is a way to UNLOADED, and each stage of a held version has a state to report."""
    ends = {Stage.UNLOADED}
    for _ in Stage:
        ends |= {stage for stage, following in NEXT.items() if following & ends}
    assert ends == set(Stage)
    assert REPORTED.keys() == set(Stage) - {Stage.DRAINING, Stage.UNLOADED}
    assert [stage for stage, state in REPORTED.items() if state is VersionState.READY] == [Stage.READY]
