"""The breaker under any course of calls and time."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker, State

THRESHOLD = 3
STEPS = st.lists(
    st.tuples(st.sampled_from(["failed", "succeeded", "tries", "undecided"]), st.floats(0.0, 40.0)), max_size=60
)


@given(STEPS)
def test_it_opens_after_failures_in_a_row_and_lets_one_call_through_at_a_time(steps):
    """Never open before the threshold; while open nothing passes before the pause; closed by a good answer only."""
    breaker, now_s, row, opened_s = Breaker(THRESHOLD), 0.0, 0, 0.0
    for step, passes_s in steps:
        now_s += passes_s
        before = breaker.state
        if step == "failed":
            row = row + 1 if before is not State.OPEN else row
            opens = breaker.failed(now_s)
            assert opens == (before is State.HALF_OPEN or (before is State.CLOSED and row >= THRESHOLD))
            opened_s = now_s if opens else opened_s
        elif step == "succeeded":
            assert breaker.succeeded(now_s) == (before is not State.CLOSED)
            assert breaker.state is State.CLOSED
            row = 0
        elif step == "undecided":
            breaker.undecided()
            assert (breaker.state is State.CLOSED) == (before is State.CLOSED)
        else:
            due = breaker.is_due(now_s)
            assert breaker.tries(now_s) == due
            assert not breaker.tries(now_s)
            assert (breaker.state is State.HALF_OPEN) == (due or before is State.HALF_OPEN)
            assert not due or now_s >= opened_s + FIRST_PAUSE_S
        assert breaker.left_s(now_s) <= LONGEST_PAUSE_S
        assert (breaker.state is State.CLOSED) or row >= THRESHOLD


@given(st.integers(1, 400))
def test_a_version_that_never_recovers_is_asked_ever_more_rarely(seconds):
    """Flapping is bounded: a trial that fails doubles the pause, up to its longest."""
    breaker, trials = Breaker(1), 0
    breaker.failed(0.0)
    for now_s in range(seconds):
        if breaker.tries(float(now_s)):
            trials += 1
            breaker.failed(float(now_s))
    assert trials <= 5 + seconds / LONGEST_PAUSE_S


@given(st.integers(1, 100))
def test_one_that_fails_again_soon_waits_longer_than_one_that_was_well(failures):
    """A relapse within a minute keeps the longer pause; after a minute of health the first pause is back."""
    for well_s, pause_s in ((10.0, 2 * FIRST_PAUSE_S), (61.0, FIRST_PAUSE_S)):
        breaker = Breaker(failures)
        for _ in range(failures):
            breaker.failed(100.0)
        assert breaker.tries(102.0)
        breaker.succeeded(102.0)
        for _ in range(failures):
            breaker.failed(102.0 + well_s)
        assert breaker.left_s(102.0 + well_s) == pause_s


@given(st.integers(1, 10_000))
def test_zero_never_opens(failures):
    """A version may do without."""
    breaker = Breaker(0)
    assert not any(breaker.failed(0.0) for _ in range(failures % 200))
    assert breaker.state is State.CLOSED
