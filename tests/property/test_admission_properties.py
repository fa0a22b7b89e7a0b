"""Admission under any order of arrivals, departures, cancellations and passing deadlines."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.serving.admission import Admission
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded


async def scenario(seed, in_flight, queue_rows, callers):
    """Let callers come, work, be cancelled and give up at random; return the admission and what was seen."""
    draw = random.Random(seed)
    admission = Admission(in_flight, queue_rows)
    inside = most = 0

    async def caller(rows, deadline_s, steps):
        nonlocal inside, most
        await admission.enter(rows, Deadline.after(deadline_s))
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            admission.leave()

    tasks = []
    for _ in range(callers):
        deadline_s = draw.choice([60.0, 60.0, 0.0])
        tasks.append(asyncio.create_task(caller(draw.randint(1, 5), deadline_s, draw.randint(0, 5))))
        for _ in range(draw.randint(0, 3)):
            await asyncio.sleep(0)
        assert admission.waiting_rows <= queue_rows
        if draw.random() < 0.4:
            draw.choice(tasks).cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return admission, most, ends


@settings(deadline=None, max_examples=150)
@given(st.integers(), st.integers(1, 4), st.integers(0, 12), st.integers(1, 25))
def test_bounds_hold_and_nothing_leaks(seed, in_flight, queue_rows, callers):
    """Never more inside than allowed, never more rows waiting, and at the end every place is free again."""
    admission, most, ends = asyncio.run(scenario(seed, in_flight, queue_rows, callers))
    assert most <= in_flight
    assert (admission.running, admission.waiting_rows) == (0, 0)
    allowed = (Overloaded, DeadlineExceeded, asyncio.CancelledError)
    assert all(end is None or isinstance(end, allowed) for end in ends)
