"""Blocking models behind asyncio: where they run, and what is never run."""

import asyncio
import threading

import numpy as np
import pytest

from adapters import threads
from adapters.threads import (
    BLOCK_CALLS,
    CROWDED_S,
    QUICK_S,
    SLOW_S,
    STALL_S,
    TRIAL_CALLS,
    Pace,
    ThreadedModel,
)
from tests.waiting import eventually_async
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, ModelFault, NotReady, Overloaded, WorkerLost
from turnout.core.request import CallContext
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

ROW = {"x": Tensor.of(np.array([1.0]))}


class Model:
    """Answers its input; notes the threads it ran on, and waits at the gate if it has one."""

    signature = Signature(inputs=(TensorSpec("x", Datatype.FP64, (-1,)),))
    properties = {"engine": "test"}  # noqa: RUF012

    def __init__(self, *, gate=None, raising=None):
        self.gate = gate
        self.raising = raising
        self.ran = []
        self.closed = False

    def predict(self, inputs, outputs):
        """Run."""
        self.ran.append(threading.current_thread())
        if self.gate is not None:
            self.gate.wait(20)
        if self.raising is not None:
            raise self.raising
        return dict.fromkeys(outputs, inputs["x"])

    def close(self):
        """Close."""
        self.closed = True


def call(seconds=20.0):
    """Return the surroundings of a call."""
    return CallContext("test", Deadline.after(seconds))


async def test_a_quick_model_moves_inline():
    """After a block of quick calls a model runs on the loop's own thread."""
    model = Model()
    threaded = ThreadedModel(model)
    assert (threaded.signature, threaded.properties) == (model.signature, model.properties)

    async def moved():
        for _ in range(BLOCK_CALLS):
            assert (await threaded.predict(ROW, ("x",), call()))["x"] is ROW["x"]
        return model.ran[-1] is threading.current_thread()

    assert (await threaded.predict(ROW, ("x",), call()))["x"] is ROW["x"]
    assert model.ran[0] is not threading.current_thread()
    await eventually_async(moved, what="it runs inline")
    await threaded.close()
    assert model.closed


async def test_what_is_quick_for_many_rows_is_tried_inline_for_few():
    """While requests are gathered hardly a call is as small as one of them: larger calls speak for it."""
    model = Model()
    threaded = ThreadedModel(model)
    many = {"x": Tensor.of(np.arange(64.0))}
    await threaded.predict(ROW, ("x",), call())
    assert threaded.predict_now(ROW, ("x",), call()) is None

    async def moved():
        for _ in range(BLOCK_CALLS):
            await threaded.predict(many, ("x",), call())
        return threaded.predict_now(ROW, ("x",), call()) is not None

    await eventually_async(moved, what="one row runs inline")
    await threaded.close()


async def test_the_loop_turns_while_a_slow_model_works():
    """A model that waits does not hold the loop up, and several calls run at once."""
    gate = threading.Event()
    threaded = ThreadedModel(Model(gate=gate), threads=2)
    calls = [asyncio.create_task(threaded.predict(ROW, ("x",), call())) for _ in range(2)]
    await eventually_async(lambda: len(threaded._model.ran) == 2)
    gate.set()
    await asyncio.gather(*calls)
    await threaded.close()


async def test_work_whose_caller_left_is_not_run():
    """Calls that are cancelled before they start are never run."""
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model, threads=1)
    first = asyncio.create_task(threaded.predict(ROW, ("x",), call()))
    await eventually_async(lambda: model.ran)
    left = [asyncio.create_task(threaded.predict(ROW, ("x",), call())) for _ in range(5)]
    last = asyncio.create_task(threaded.predict(ROW, ("x",), call()))
    await asyncio.sleep(0)
    for task in left:
        task.cancel()
    gate.set()
    await first
    await last
    assert len(model.ran) == 2
    await threaded.close()


async def test_work_whose_deadline_passed_is_not_run():
    """A call that waited past its deadline is DeadlineExceeded and never run, on threads and inline."""
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model, threads=1)
    first = asyncio.create_task(threaded.predict(ROW, ("x",), call()))
    await eventually_async(lambda: model.ran)
    late = asyncio.create_task(threaded.predict(ROW, ("x",), call(0)))
    await asyncio.sleep(0)
    gate.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await late
    threaded._paces[1].inline = True
    with pytest.raises(DeadlineExceeded):
        await threaded.predict(ROW, ("x",), call(0))
    assert len(model.ran) == 1
    await threaded.close()


async def test_waiting_calls_are_bounded():
    """One call more than may wait is Overloaded at once."""
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model, threads=1, waiting=3)
    calls = [asyncio.create_task(threaded.predict(ROW, ("x",), call()))]
    await eventually_async(lambda: model.ran)
    calls += [asyncio.create_task(threaded.predict(ROW, ("x",), call())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await threaded.predict(ROW, ("x",), call())
    gate.set()
    await asyncio.gather(*calls)
    await threaded.close()
    with pytest.raises(NotReady):
        await threaded.predict(ROW, ("x",), call())


@pytest.mark.parametrize("inline", [False, True])
async def test_what_the_model_raises_reaches_the_caller(inline):
    """Errors pass as they are; what would end a thread or a coroutine becomes ModelFault."""
    ends = (SystemExit(3), StopIteration(), KeyboardInterrupt(), asyncio.CancelledError())
    for raised, expected in ((KeyError("k"), KeyError), *((end, ModelFault) for end in ends)):
        threaded = ThreadedModel(Model(raising=raised))
        threaded._paces[1] = Pace()
        threaded._paces[1].inline = inline
        with pytest.raises(expected):
            await threaded.predict(ROW, ("x",), call())
        await threaded.close()


async def test_a_model_that_answers_nothing_is_at_fault():
    """None instead of tensors is ModelFault."""
    model = Model()
    model.predict = lambda _inputs, _outputs: None
    threaded = ThreadedModel(model)
    with pytest.raises(ModelFault):
        await threaded.predict(ROW, ("x",), call())
    await threaded.close()


async def test_a_call_that_hangs_does_not_keep_close_waiting(monkeypatch):
    """Close gives a hanging call its time, then leaves it; the model under it is not closed."""
    monkeypatch.setattr(threads, "CLOSE_S", 0.05)
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model)
    task = asyncio.create_task(threaded.predict(ROW, ("x",), call()))
    await eventually_async(lambda: model.ran)
    await threaded.close()
    assert not model.closed
    gate.set()
    await task


async def test_a_call_that_hangs_is_a_loss_until_it_ends(monkeypatch):
    """A call long past its deadline is told as the model's loss, others are refused, and its end as the return."""
    monkeypatch.setattr(threads, "HANGS_S", 0.05)
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model, threads=1)
    heard = []
    threaded.watch(lambda reason, calls: heard.append((reason, calls)), lambda: heard.append("back"))
    task = asyncio.create_task(threaded.predict(ROW, ("x",), call(0.05)))
    await eventually_async(lambda: model.ran)
    task.cancel()
    await eventually_async(lambda: heard)
    assert heard == [("a call hangs: it is 0.05 s past its deadline", 1)]
    with pytest.raises(WorkerLost):
        await threaded.predict(ROW, ("x",), call())
    gate.set()
    await eventually_async(lambda: heard[-1] == "back")
    assert (await threaded.predict(ROW, ("x",), call()))["x"] is ROW["x"]
    await threaded.close()


async def test_a_call_that_ends_in_time_is_no_loss(monkeypatch):
    """A call whose caller left, and that ends soon after, is not told."""
    monkeypatch.setattr(threads, "HANGS_S", 0.05)
    gate = threading.Event()
    model = Model(gate=gate)
    threaded = ThreadedModel(model, threads=1)
    heard = []
    threaded.watch(lambda *_: heard.append("lost"), lambda: heard.append("back"))
    task = asyncio.create_task(threaded.predict(ROW, ("x",), call(0.1)))
    await eventually_async(lambda: model.ran)
    task.cancel()
    gate.set()
    await threaded.predict(ROW, ("x",), call())
    looked = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1 + threads.HANGS_S, looked.set)  # after the model's own look
    await looked.wait()
    assert not heard
    await threaded.close()


def block(pace, wall_s, cpu_s, count=BLOCK_CALLS):
    """Feed a block of equal calls from a thread."""
    for _ in range(count):
        pace.ran_on_thread(wall_s, cpu_s)


def test_quick_calls_go_inline_and_slow_ones_come_back():
    """Below the lower bound a model moves inline, above the upper one back; between them it stays where it is."""
    pace = Pace()
    between = (QUICK_S + SLOW_S) / 2
    block(pace, between, between)
    assert not pace.inline
    block(pace, QUICK_S / 2, QUICK_S / 2)
    assert pace.inline
    for _ in range(BLOCK_CALLS):
        pace.ran_inline(between)
    assert pace.inline
    for _ in range(BLOCK_CALLS):
        pace.ran_inline(2 * SLOW_S)
    assert not pace.inline


def test_one_slow_call_in_a_block_is_forgiven():
    """The p99 of a block decides, not its slowest call."""
    pace = Pace()
    pace.ran_on_thread(1.0, 1.0)
    block(pace, QUICK_S / 2, QUICK_S / 2, BLOCK_CALLS - 1)
    assert pace.inline
    pace.ran_inline(2 * SLOW_S)
    for _ in range(BLOCK_CALLS - 1):
        pace.ran_inline(QUICK_S / 2)
    assert pace.inline


def test_a_stall_goes_back_at_once_and_is_remembered():
    """One inline call that stalls is enough to go back, and the next try takes twice as many quick calls."""
    pace = Pace()
    block(pace, QUICK_S / 2, QUICK_S / 2)
    pace.ran_inline(STALL_S)
    assert not pace.inline
    block(pace, QUICK_S / 2, QUICK_S / 2)
    assert not pace.inline
    block(pace, QUICK_S / 2, QUICK_S / 2)
    assert pace.inline


def test_a_busy_machine_does_not_drive_a_quick_model_from_the_loop():
    """Some inline calls that lose the processor for a few milliseconds are forgiven; many are not."""
    pace = Pace()
    block(pace, QUICK_S / 2, QUICK_S / 2)
    for number in range(4 * BLOCK_CALLS):
        pace.ran_inline(5e-3 if number % 50 == 0 else QUICK_S / 10)
    assert pace.inline
    for number in range(BLOCK_CALLS):
        pace.ran_inline(5e-3 if number % 10 == 0 else QUICK_S / 10)
    assert not pace.inline


def test_a_model_that_sleeps_is_not_quick():
    """Little processor time with long wall time stays on threads: it waits for something."""
    pace = Pace()
    block(pace, 1.0, QUICK_S / 10)
    assert not pace.inline


def test_a_crowded_interpreter_does_not_hide_a_quick_model():
    """Wall time that is long now and then, for want of the interpreter, does not keep a quick model on threads."""
    pace = Pace()
    for number in range(BLOCK_CALLS):
        pace.ran_on_thread(5e-3 if number % 3 == 0 else QUICK_S / 2, QUICK_S / 2)
    assert pace.inline


def test_a_quick_model_finds_its_way_inline_under_load():
    """Where every call on a thread waits for a busy loop, a few calls inline show that the model is quick."""
    pace = Pace()
    block(pace, CROWDED_S / 2, QUICK_S / 10)
    assert pace.inline
    for _ in range(2 * BLOCK_CALLS):
        pace.ran_inline(QUICK_S / 10)
    assert pace.inline


def test_a_model_that_sleeps_shortly_is_found_out_by_its_trial():
    """A few inline calls are enough to send it back, and the next trial comes later."""
    pace = Pace()
    block(pace, CROWDED_S / 2, QUICK_S / 10)
    for _ in range(TRIAL_CALLS):
        assert pace.inline
        pace.ran_inline(CROWDED_S / 2)
    assert not pace.inline
    block(pace, CROWDED_S / 2, QUICK_S / 10)
    assert not pace.inline
