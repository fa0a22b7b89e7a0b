"""Admission: bounds are kept, nobody overtakes, whoever leaves leaves no trace."""

import asyncio

import pytest

from gateway.limits import Limits
from gateway.pressure import Pressure
from gateway.serving import admission as admission_module
from gateway.serving.admission import Admission
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded
from turnout.core.manifest import VersionLimits


def bounded(in_flight, queue_rows, **limits):
    """Return an admission with these bounds, in a process of its own."""
    return Admission(VersionLimits(in_flight=in_flight, queue_rows=queue_rows, **limits), Pressure(Limits()))


def far():
    """Return a deadline that does not matter."""
    return Deadline.after(60)


async def turn():
    """Let every ready task run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_free_places_are_taken_at_once():
    """Up to the bound nobody waits; beyond it `try_enter` says no."""
    admission = bounded(2, 1)
    assert [admission.try_enter() for _ in range(3)] == [True, True, False]
    admission.leave()
    assert admission.try_enter()


async def test_waiting_is_first_come_first_served():
    """Places go to the longest waiting, and a newcomer does not take one that was just freed."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    order = []

    async def caller(name):
        await admission.enter(1, far())
        order.append(name)

    tasks = [asyncio.create_task(caller(name)) for name in "abc"]
    await turn()
    admission.leave()
    assert not admission.try_enter()
    await turn()
    assert order == ["a"]
    admission.leave()
    admission.leave()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]


async def test_queue_is_bounded_in_rows():
    """Rows beyond the bound are shed with a time to come back, whatever the number of requests."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    waiting = asyncio.create_task(admission.enter(8, far()))
    await turn()
    with pytest.raises(Overloaded) as shed:
        await admission.enter(3, far())
    assert shed.value.retry_after_s >= 1
    assert admission.waiting_rows == 8
    admission.leave()
    await waiting
    assert admission.waiting_rows == 0


async def test_no_queue_sheds_at_once():
    """A version with `queue_rows: 0` never has anybody wait."""
    admission = bounded(1, 0)
    assert admission.try_enter()
    with pytest.raises(Overloaded):
        await admission.enter(1, far())


async def test_wait_ends_with_the_deadline():
    """Who waits past the deadline is told so and is not in the queue any more."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    with pytest.raises(DeadlineExceeded):
        await admission.enter(4, Deadline.after(0.01))
    assert admission.waiting_rows == 0
    admission.leave()
    assert admission.running == 0


async def test_cancelled_waiter_is_passed_over():
    """A place that frees in the very turn in which its next owner is cancelled goes to the one after."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    first = asyncio.create_task(admission.enter(1, far()))
    second = asyncio.create_task(admission.enter(1, far()))
    await turn()
    first.cancel()
    admission.leave()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert (admission.running, admission.waiting_rows) == (1, 0)


async def test_place_of_a_cancelled_owner_is_passed_on():
    """Who is cancelled after the place came, but before running, hands it on."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    first = asyncio.create_task(admission.enter(1, far()))
    second = asyncio.create_task(admission.enter(1, far()))
    await turn()
    admission.leave()
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert (admission.running, admission.waiting_rows) == (1, 0)


async def test_new_bounds_let_waiters_in():
    """A wider bound lets in who waits; a narrower one lets nobody in until enough have left."""
    admission = bounded(1, 10)
    assert admission.try_enter()
    tasks = [asyncio.create_task(admission.enter(1, far())) for _ in range(3)]
    await turn()
    admission.rebound(VersionLimits(in_flight=3, queue_rows=10))
    await turn()
    assert [task.done() for task in tasks] == [True, True, False]
    admission.rebound(VersionLimits(in_flight=1, queue_rows=10))
    admission.leave()
    await turn()
    assert not tasks[2].done()
    admission.leave()
    admission.leave()
    await tasks[2]


async def test_queue_is_bounded_in_bytes():
    """Bytes beyond the bound are shed, however few the rows."""
    admission = bounded(1, 10, queue_bytes=100)
    assert admission.try_enter()
    waiting = asyncio.create_task(admission.enter(1, far(), 80))
    await turn()
    with pytest.raises(Overloaded, match="no room"):
        await admission.enter(1, far(), 30)
    assert admission.waiting_bytes == 80
    admission.leave()
    await waiting
    assert admission.waiting_bytes == 0


async def test_process_bounds_hold_over_all_versions():
    """Two versions of one process share its bounds in requests and rows; who cannot come in is counted nowhere."""
    pressure = Pressure(Limits(held_requests=3, held_rows=10))
    first, second = (Admission(VersionLimits(in_flight=1), pressure) for _ in range(2))
    for admission, rows in ((first, 4), (first, 1), (second, 1)):
        admission.arrive(rows, far())
    with pytest.raises(Overloaded, match="3 requests"):
        second.arrive(1, far())
    second.depart(1, ran=False)
    second.arrive(6, far())
    first.depart(1, ran=False)
    with pytest.raises(Overloaded, match="10 rows"):
        first.arrive(1, far())
    assert (pressure.requests, pressure.rows) == (2, 10)
    first.depart(4, ran=False)
    second.depart(6, ran=False)
    assert (pressure.requests, pressure.rows) == (0, 0)


async def test_a_version_without_a_free_place_is_crowded():
    """The process knows how many of its versions have nobody let in at once; places that free up are told."""
    pressure = Pressure(Limits())
    first, second = (Admission(VersionLimits(in_flight=1), pressure) for _ in range(2))
    assert not pressure.presses
    assert first.try_enter()
    assert second.try_enter()
    assert (pressure.crowded, pressure.presses) == (2, True)
    waiting = asyncio.create_task(first.enter(1, far()))
    await turn()
    first.leave()
    second.leave()
    await waiting
    assert pressure.crowded == 1
    first.leave()
    assert not pressure.presses


def departures(monkeypatch, seconds):
    """Return an admission that four rows have left, so many seconds one after another, and a clock that stands."""
    now_s = 100.0
    monkeypatch.setattr(admission_module, "monotonic_s", lambda: now_s)
    admission = bounded(1, 4)
    for _ in range(4):
        admission.arrive(1, far())
    for _ in range(4):
        now_s += seconds
        admission.depart(1, ran=True)
    return admission


async def test_who_cannot_be_answered_in_time_is_not_let_in(monkeypatch):
    """Behind rows that take too long a short deadline is refused at once, and told how long they take; a long is not.

    An idle version takes everybody: what it was like before says little.
    """
    admission = departures(monkeypatch, 1.0)
    admission.arrive(1, Deadline.after(0.001))
    with pytest.raises(Overloaded, match="no answer before the deadline") as shed:
        admission.arrive(1, Deadline.after(0.7))
    assert shed.value.retry_after_s == 2
    admission.arrive(1, far())


async def test_who_would_run_at_once_is_let_in(monkeypatch):
    """A model that runs two calls side by side takes a second one, whatever the first is, and no third that is late."""
    admission = departures(monkeypatch, 1.0)
    admission.at_once = 2
    for _ in range(2):
        admission.arrive(1, Deadline.after(0.001))
    with pytest.raises(Overloaded):
        admission.arrive(1, Deadline.after(0.7))


async def test_a_full_queue_says_when_to_come_back(monkeypatch):
    """The time to come back is that in which as many rows leave, in whole seconds."""
    admission = departures(monkeypatch, 3.5)
    assert admission.try_enter()
    with pytest.raises(Overloaded) as shed:
        await admission.enter(5, far())
    assert shed.value.retry_after_s == 18
