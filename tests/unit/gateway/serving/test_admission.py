"""Admission: bounds are kept, nobody overtakes, whoever leaves leaves no trace."""

import asyncio

import pytest

from gateway.serving.admission import Admission
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded


def far():
    """Return a deadline that does not matter."""
    return Deadline.after(60)


async def turn():
    """Let every ready task run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_free_places_are_taken_at_once():
    """Up to the bound nobody waits; beyond it `try_enter` says no."""
    admission = Admission(2, 0)
    assert [admission.try_enter() for _ in range(3)] == [True, True, False]
    admission.leave()
    assert admission.try_enter()


async def test_waiting_is_first_come_first_served():
    """Places go to the longest waiting, and a newcomer does not take one that was just freed."""
    admission = Admission(1, 10)
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
    admission = Admission(1, 10)
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
    admission = Admission(1, 0)
    assert admission.try_enter()
    with pytest.raises(Overloaded):
        await admission.enter(1, far())


async def test_wait_ends_with_the_deadline():
    """Who waits past the deadline is told so and is not in the queue any more."""
    admission = Admission(1, 10)
    assert admission.try_enter()
    with pytest.raises(DeadlineExceeded):
        await admission.enter(4, Deadline.after(0.01))
    assert admission.waiting_rows == 0
    admission.leave()
    assert admission.running == 0


async def test_cancelled_waiter_is_passed_over():
    """A place that frees in the very turn in which its next owner is cancelled goes to the one after."""
    admission = Admission(1, 10)
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
    admission = Admission(1, 10)
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
    admission = Admission(1, 10)
    assert admission.try_enter()
    tasks = [asyncio.create_task(admission.enter(1, far())) for _ in range(3)]
    await turn()
    admission.rebound(3, 10)
    await turn()
    assert [task.done() for task in tasks] == [True, True, False]
    admission.rebound(1, 10)
    admission.leave()
    await turn()
    assert not tasks[2].done()
    admission.leave()
    admission.leave()
    await tasks[2]
