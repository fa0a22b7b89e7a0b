"""Admission under any order of arrivals, departures, cancellations and passing deadlines."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits import Limits
from gateway.pressure import Pressure
from gateway.serving.admission import Admission
from gateway.serving.throughput import Throughput
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded
from turnout.core.manifest import VersionLimits


class Scenario:
    """Two versions of one process, whose callers come, work, are cancelled and give up at random."""

    def __init__(self, seed, in_flight, queue_rows):
        self.draw = random.Random(seed)
        self.limits = VersionLimits(in_flight=in_flight, queue_rows=queue_rows, queue_bytes=60)
        self.pressure = Pressure(Limits(held_requests=12, held_rows=30))
        self.versions = [Admission(self.limits, self.pressure) for _ in range(2)]
        self.inside = [0, 0]
        self.order = [[], []]
        self.come = 0

    async def caller(self, index, rows, deadline_s, steps):
        """Come, wait, work and leave."""
        version = self.versions[index]
        self.come += 1
        number = self.come
        deadline = Deadline.after(deadline_s)
        version.arrive(rows, deadline)
        try:
            has_to_wait = version.running >= self.limits.in_flight
            assert has_to_wait or version.waiting_rows == 0  # a free place while somebody waits would be an overtaking
            await version.enter(rows, deadline, rows * 10)
            if has_to_wait:
                self.order[index].append(number)
            self.inside[index] += 1
            assert self.inside[index] <= self.limits.in_flight
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                self.inside[index] -= 1
                version.leave()
        finally:
            version.depart(rows, ran=False)

    async def run(self, callers):
        """Let so many callers come, and return how each ended."""
        draw, tasks = self.draw, []
        for _ in range(callers):
            deadline_s = draw.choice([60.0, 60.0, 0.0])
            work = self.caller(draw.randrange(2), draw.randint(1, 5), deadline_s, draw.randint(0, 5))
            tasks.append(asyncio.create_task(work))
            for _ in range(draw.randint(0, 3)):
                await asyncio.sleep(0)
            self.look()
            if draw.random() < 0.4:
                draw.choice(tasks).cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    def look(self):
        """See that every bound holds and every count adds up."""
        for version in self.versions:
            assert 0 <= version.running <= self.limits.in_flight
            assert 0 <= version.waiting_rows <= min(version.rows, self.limits.queue_rows)
            assert version.waiting_bytes == 10 * version.waiting_rows <= self.limits.queue_bytes
        assert 0 <= self.pressure.requests <= 12
        assert self.pressure.rows == sum(version.rows for version in self.versions)
        assert self.pressure.crowded == sum(version.running == self.limits.in_flight for version in self.versions)


@settings(deadline=None, max_examples=150)
@given(st.integers(), st.integers(1, 4), st.integers(0, 12), st.integers(1, 30))
def test_bounds_hold_nobody_overtakes_and_nothing_leaks(seed, in_flight, queue_rows, callers):
    """Bounds of versions and process hold at every step, places go in order of arrival, and all are free at the end."""
    scenario = Scenario(seed, in_flight, queue_rows)
    ends = asyncio.run(scenario.run(callers))
    assert all(order == sorted(order) for order in scenario.order)
    scenario.look()
    assert (scenario.pressure.requests, scenario.pressure.rows, scenario.pressure.crowded) == (0, 0, 0)
    allowed = (Overloaded, DeadlineExceeded, asyncio.CancelledError)
    assert all(end is None or isinstance(end, allowed) for end in ends)


@given(st.integers(1, 20), st.floats(1e-4, 10.0), st.integers(1, 8), st.integers(2, 60))
def test_a_steady_pace_is_learned(side_by_side, call_s, rows, calls):
    """Of a version that answers so many side by side, the wait behind as many is foreseen, and never overrated."""
    throughput = Throughput()
    throughput.began(0.0)
    there = side_by_side * rows
    for call in range(calls):
        throughput.left(rows, there, (call + 1) * call_s / side_by_side)
    assert call_s <= throughput.expected_s(there) <= call_s * 1.3
    assert throughput.expected_s(10 * there) <= call_s * 1.4
    assert throughput.expected_s(0) == 0


@given(st.floats(0.0, 1.0), st.integers(100, 2000), st.randoms(use_true_random=False))
def test_those_who_come_late_widen_the_margin_and_no_more_than_threefold(share, calls, draw):
    """However many come late, what is expected stays within its bounds, and comes back once they come in time."""
    throughput = Throughput()
    throughput.began(0.0)
    throughput.left(1, 1, 1.0)
    usual_s = throughput.expected_s(1)
    for _ in range(calls):
        throughput.judged(late=draw.random() < share)
        assert usual_s <= throughput.expected_s(1) <= 3.0 + 1e-9
    for _ in range(1000):
        throughput.judged(late=False)
    assert throughput.expected_s(1) == usual_s
