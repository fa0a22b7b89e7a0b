"""Answers that take long to write: on threads, inside the deadline, bounded."""

import asyncio
import threading

import pytest

from gateway.routing import long_answers
from tests.fakes import FakeModel, Writer, request, route
from tests.waiting import eventually_async
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, ModelFault, Overloaded


async def test_long_answers_are_written_on_a_thread(plane):
    """What takes long to write does not hold the loop, is asked of the model once, and fails like any other."""
    model, writers = FakeModel(), []

    def write(prediction):
        writers.append(threading.current_thread())
        if len(writers) > 1:
            raise ModelFault("not finite")

    await plane.serve({"m@1": model}, route("m", "m@1"))
    before = len(model.calls)
    await plane.predict(request(writer=Writer(write, lambda outputs: "score" in outputs)))
    assert len(model.calls) == before + 1
    with pytest.raises(ModelFault):
        await plane.predict(request(writer=Writer(write, lambda _: True)))
    assert threading.main_thread() not in writers
    assert plane.count("turnout_requests_total", outcome="fault") == 1


async def test_an_answer_that_is_written_too_long_is_late(plane):
    """Nobody waits past the deadline for a thread that writes."""
    finished = threading.Event()
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    asked = request(writer=Writer(lambda _: finished.wait(30), lambda _: True), deadline=Deadline(monotonic_s() + 0.2))
    with pytest.raises(DeadlineExceeded, match="while the answer was written"):
        await plane.predict(asked)
    finished.set()
    assert plane.count("turnout_requests_total", outcome="deadline") == 1


async def test_long_answers_that_wait_are_bounded(plane, monkeypatch):
    """Each holds its tensors: beyond the bound a request is shed and counted, and the places come back."""
    monkeypatch.setattr(long_answers, "WAITING", 2)
    finished = threading.Event()
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    asked = [request(writer=Writer(lambda _: finished.wait(30), lambda _: True)) for _ in range(3)]
    first = [asyncio.create_task(plane.predict(one)) for one in asked[:2]]
    await eventually_async(lambda: plane.router._long_answers._waiting == 2)
    with pytest.raises(Overloaded, match="2 long answers"):
        await plane.predict(asked[2])
    finished.set()
    await asyncio.gather(*first)
    assert (await plane.predict(asked[2])).version is not None
    assert plane.count("turnout_requests_total", outcome="overloaded") == 1
