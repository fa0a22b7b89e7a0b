"""Calls under a deadline: quick ones pay for no timer, slow ones end in time."""

import asyncio

import pytest

from gateway.serving.within import within
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded


class Timers:
    """Counts the timers that a loop is asked for."""

    def __init__(self, monkeypatch):
        self.count = 0
        loop = asyncio.get_running_loop()
        original = loop.call_at

        def call_at(*args, **kwargs):
            self.count += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(loop, "call_at", call_at)


async def test_inline_call_takes_no_timer(monkeypatch):
    """A call that never waits is neither wrapped in a task nor timed."""
    timers = Timers(monkeypatch)

    async def call():
        return asyncio.current_task()

    assert await within(Deadline.after(10), call()) is asyncio.current_task()
    assert timers.count == 0


async def test_waiting_call_returns_its_result():
    """A call that waits several times gives its result."""

    async def call():
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return 5

    assert await within(Deadline.after(10), call()) == 5


async def test_late_call_is_cancelled():
    """When the deadline passes the call is cancelled where it waits, and its caller is told so."""
    cancelled = []

    async def call():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(DeadlineExceeded):
        await within(Deadline.after(0.01), call())
    assert cancelled == [True]
    assert asyncio.current_task().cancelling() == 0


async def test_inline_call_that_took_too_long_is_late():
    """An answer that came after its deadline counts as none."""
    deadline = Deadline.after(0.001)

    async def call():
        while not deadline.passed:
            pass
        return 5

    with pytest.raises(DeadlineExceeded):
        await within(deadline, call())


@pytest.mark.parametrize("waits", [False, True])
async def test_errors_of_the_call_pass(waits):
    """What the call raises is raised, also a TimeoutError of its own, whether or not it waited."""

    async def call():
        if waits:
            await asyncio.sleep(0)
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await within(Deadline.after(10), call())


async def test_cancelling_the_caller_cancels_the_call():
    """A caller that leaves takes the call along."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def call():
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(within(Deadline.after(10), call()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
