"""Slots, back-off, the quarantine rule and the rules of following."""

import pytest

from gateway.parent.backoff import Backoff
from gateway.parent.follow import Position, refusal
from gateway.parent.quarantine import DEATHS_LOADING, Losses, Suspects
from gateway.parent.slots import Slots


def test_a_slot_is_reused_only_once_its_owner_has_exited(tmp_path):
    """Overlapping processes get slots of their own; the lowest free one is next."""
    slots = Slots(tmp_path)
    assert [slots.take(), slots.take(), slots.take()] == [0, 1, 2]
    slots.give_back(1)
    assert [slots.take(), slots.take()] == [1, 3]


def test_a_dead_owner_leaves_its_counters_and_takes_its_gauges(tmp_path):
    """Counters must not fall; what a dead process last gauged is no longer true. Other slots are left alone."""
    names = ["counter_1.db", "histogram_1.db", "gauge_livesum_1.db", "gauge_livemin_1.db", "gauge_livesum_11.db"]
    for name in names:
        (tmp_path / name).touch()
    slots = Slots(tmp_path)
    slots.give_back(1)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_1.db", "histogram_1.db", "gauge_livesum_11.db"}


def test_back_off_doubles_and_forgets_after_a_healthy_life():
    """A process that dies young waits longer each time, up to half a minute; a healthy life starts over."""
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert backoff.after(60.0) == 0.0


def test_three_losses_within_a_minute_quarantine():
    """The third loss with calls in flight within 60 s takes the version out."""
    losses = Losses()
    assert [losses.count("m@1", at_s) for at_s in (0.0, 30.0, 59.0)] == [False, False, True]


def test_losses_that_are_far_apart_do_not_quarantine():
    """Three losses in more than a minute are bad luck; the window moves on."""
    losses = Losses()
    assert [losses.count("m@1", at_s) for at_s in (0.0, 40.0, 70.0, 90.0)] == [False, False, False, True]


def test_one_loss_reported_by_several_processes_counts_once():
    """Each gateway process reports the same loss a moment apart."""
    losses = Losses()
    assert [losses.count("m@1", at_s) for at_s in (0.0, 0.1, 0.2, 5.0, 5.3)] == [False] * 5
    losses.forget("m@1")
    assert losses.count("m@1", 6.0) is False


A, B = {"a@1": "sha256:a"}, {"b@1": "sha256:b"}
BOTH = A | B


def test_a_version_that_was_loading_alone_is_quarantined_at_the_third_death():
    """The reason says how often, and how to try again."""
    suspects = Suspects()
    assert [suspects.died(A) for _ in range(DEATHS_LOADING)] == [[], [], ["a@1"]]
    why = "quarantined: the process died 3 times while loading it"
    reason = why + "; load it again, or start Turnout again, to retry"
    assert suspects.refused(BOTH) == {"a@1": reason}
    assert suspects.alone(BOTH) == []


def test_versions_that_were_loading_together_are_suspected_and_loaded_one_by_one():
    """However many processes die at once: only a death while it loads alone shows the guilty one."""
    suspects = Suspects()
    assert [suspects.died(BOTH) for _ in range(5)] == [[]] * 5
    assert (suspects.alone(BOTH), suspects.refused(BOTH)) == (["a@1", "b@1"], {})
    suspects.survived(B)
    assert suspects.alone(BOTH) == ["a@1"]
    assert suspects.died(A) == ["a@1"]
    assert list(suspects.refused(BOTH)) == ["a@1"]


def test_a_pardoned_version_is_quarantined_again_by_its_next_death():
    """An operator's retry costs one process at most; only the model that was named is pardoned."""
    suspects = Suspects()
    for _ in range(DEATHS_LOADING):
        suspects.died(A)
    assert (suspects.pardon("b"), suspects.pardon("a"), suspects.pardon("a")) == (False, True, False)
    assert (suspects.alone(BOTH), suspects.refused(BOTH)) == (["a@1"], {})
    assert suspects.died(A) == ["a@1"]
    assert "died 4 times" in suspects.refused(A)["a@1"]


@pytest.mark.parametrize("held", [{}, {"a@1": "sha256:new"}])
def test_a_version_that_left_or_has_other_bytes_starts_again(held):
    """What was known of it is no longer true."""
    suspects = Suspects()
    for _ in range(DEATHS_LOADING):
        suspects.died(A)
    assert suspects.refused({"a@1": "sha256:new"}) == {}
    suspects.keep(held)
    assert suspects.refused(A) == {}
    assert suspects.died(A) == []


def test_what_is_refused_is_not_cleared_by_being_refused():
    """A process that is told not to load a version does not thereby survive it."""
    suspects = Suspects()
    for _ in range(DEATHS_LOADING):
        suspects.died(A)
    suspects.survived(A)
    assert list(suspects.refused(A)) == ["a@1"]


HERE = Position("registry-a", 7, "sha256:7")


@pytest.mark.parametrize(
    ("offered", "word"),
    [
        (Position("registry-b", 9, "sha256:9"), "registry registry-b"),
        (Position("registry-a", 6, "sha256:6"), "generation 6"),
        (Position("registry-a", 7, "sha256:other"), "another generation 7"),
    ],
)
def test_what_cannot_be_the_next_snapshot_is_refused_with_a_way_out(offered, word):
    """Another registry, a lower generation, and a changed generation are refused; the reason says how to adopt."""
    reason = refusal(HERE, offered)
    assert word in reason
    assert reason.endswith("run `turnout gateway adopt` to follow it")


@pytest.mark.parametrize("offered", [HERE, Position("registry-a", 8, "sha256:8")])
def test_the_same_or_a_newer_snapshot_is_followed(offered):
    """The snapshot that the gateway already has, and newer ones of its registry, are taken; so is any first one."""
    assert refusal(HERE, offered) == ""
    assert refusal(None, offered) == ""
