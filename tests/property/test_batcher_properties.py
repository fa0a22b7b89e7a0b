"""Batching under any arrivals, sizes, shapes, deadlines, failures and departures: everyone gets what it would alone."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.limits import Limits
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.loading import Call
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault, Overloaded, TurnoutError, WorkerLost
from turnout.core.ids import VersionRef
from turnout.core.manifest import VersionLimits
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor, equal_bits

SIGNATURE = Signature(
    inputs=(TensorSpec("x", Datatype.FP64, (-1, -1)), TensorSpec("text", Datatype.BYTES, (-1,), nullable=True)),
    outputs=(TensorSpec("double", Datatype.FP64, (-1, -1)), TensorSpec("echo", Datatype.BYTES, (-1,))),
)
WANTED = (("double", "echo"), ("echo", "double"), ("double",), ("echo",))
INVALID, FAULT = -1.0, -2.0  # values of x that the model refuses, or breaks on
CALLERS = st.lists(
    st.fixed_dictionaries(
        {
            "rows": st.sampled_from([1, 1, 1, 2, 3, 7, 12]),
            "width": st.sampled_from([2, 2, 2, 3]),
            "wanted": st.sampled_from(WANTED),
            "bad": st.sampled_from([None] * 10 + [INVALID, FAULT]),
            "late_s": st.sampled_from([60.0] * 8 + [0.001, 0.0]),
            "turns_before": st.sampled_from([0, 0, 0, 0, 0, 1, 4]),
            "leaves_after": st.sampled_from([None] * 8 + [0, 1, 3]),
        }
    ),
    min_size=10,
    max_size=24,
)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Numbers of a version, real ones."""
    return Metrics(tmp_path_factory.mktemp("metrics"), 0).version(VersionRef("m", 1))


class Model:
    """The reference: it answers each row for itself, after some turns of the loop, and remembers its calls."""

    def __init__(self, turns, lost_call):
        self.turns = turns
        self.lost_call = lost_call
        self.calls = []
        self.lost = set()
        self.under_way = self.most = 0

    async def run(self, inputs, wanted, call, rows):
        """Answer, or fail as the rows say."""
        x = inputs["x"].array
        assert rows == len(x) == len(inputs["text"].array)
        if call.deadline.passed:
            raise DeadlineExceeded("too late to start")
        callers = [int(number) for number in dict.fromkeys(x[:, 0])]
        self.calls.append((callers, rows, tuple(wanted)))
        number = len(self.calls)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
            call.predict_s += 1e-6
        if number == self.lost_call:
            self.lost.update(callers)
            raise WorkerLost("gone")
        return answered(inputs, wanted)


def answered(inputs, wanted):
    """Return what the model answers to rows, whatever rows they stand among. Raises for a bad one."""
    x = inputs["x"].array
    if (x[:, 1] == INVALID).any():
        raise InvalidInput(f"row {int(np.flatnonzero(x[:, 1] == INVALID)[0])} is refused")
    if (x[:, 1] == FAULT).any():
        raise ModelFault("the model broke")
    outputs = {"double": Tensor.of(x * 2), "echo": Tensor(Datatype.BYTES, inputs["text"].array)}
    return {name: outputs[name] for name in wanted}


def rows_of(number, caller):
    """Return a caller's rows: the first column tells whose they are."""
    count = caller["rows"]
    x = np.arange(count * caller["width"], dtype=np.float64).reshape(count, -1)
    x[:, 0] = number
    if caller["bad"] is not None:
        x[count - 1, 1] = caller["bad"]
    texts = [None if row % 3 == 2 else b"%d-%d" % (number, row) for row in range(count)]
    return {"x": Tensor.of(x), "text": Tensor.of(np.array(texts, object))}


async def scenario(callers, model, admission, metrics, *, max_rows, calls_at_once):
    """Let callers come and leave; return how each ended."""
    batcher = Batcher(admission, metrics, model.run, SIGNATURE, max_rows=max_rows, calls_at_once=calls_at_once)
    tasks = []
    for number, caller in enumerate(callers):
        for _ in range(caller["turns_before"]):
            await asyncio.sleep(0)
        call = Call(f"id-{number}", Deadline.after(caller["late_s"]))
        ask = batcher.predict(rows_of(number, caller), caller["wanted"], call, caller["rows"])
        tasks.append(asyncio.create_task(ask))
        for earlier, task in zip(callers, tasks, strict=False):
            if earlier["leaves_after"] == 0:
                task.cancel()
            if earlier["leaves_after"] is not None:
                earlier["leaves_after"] -= 1
    async with asyncio.timeout(20):
        return await asyncio.gather(*tasks, return_exceptions=True)


@settings(max_examples=200)
@given(
    callers=CALLERS,
    turns=st.integers(0, 8),
    max_rows=st.sampled_from([2, 5, 10, 20, 64]),
    calls_at_once=st.sampled_from([1, 1, 2, 3]),
    queue_rows=st.sampled_from([10, 200]),
    lost_call=st.sampled_from([0, 0, 0, 2, 5]),
)
def test_everyone_gets_what_it_would_alone(metrics, callers, turns, max_rows, calls_at_once, queue_rows, lost_call):
    """Answers and failures are those of each member alone; bounds hold, order is kept, and nothing is left behind."""
    model = Model(turns, lost_call)
    admission = Admission(VersionLimits(queue_rows=queue_rows), Pressure(Limits()))
    leavers = {number for number, caller in enumerate(callers) if caller["leaves_after"] is not None}
    ends = asyncio.run(scenario(callers, model, admission, metrics, max_rows=max_rows, calls_at_once=calls_at_once))
    for number, (caller, end) in enumerate(zip(callers, ends, strict=True)):
        check_end(number, caller, end, model, leavers)
    for members, rows, wanted in model.calls:
        assert rows <= max_rows or len(members) == 1
        assert len({callers[member]["width"] for member in members}) == 1
        assert set(wanted) == {name for member in members for name in callers[member]["wanted"]}
    assert model.most <= calls_at_once
    check_order(callers, model)
    assert (admission.running, admission.waiting_rows, admission.waiting_bytes) == (0, 0, 0)
    assert admission.idle.is_set()
    assert metrics.queue_rows.get() == 0
    event(f"largest call: {max((len(members) for members, *_ in model.calls), default=0) // 3 * 3} members or more")


def check_end(number, caller, end, model, leavers):
    """A caller ends as it would alone, or for a reason of its own."""
    if isinstance(end, asyncio.CancelledError):
        assert number in leavers
    elif isinstance(end, DeadlineExceeded):
        assert caller["late_s"] < 1
    elif isinstance(end, WorkerLost):
        assert number in model.lost
    elif isinstance(end, Overloaded):
        assert number not in {member for members, *_ in model.calls for member in members}
    else:
        check_answer(rows_of(number, caller), caller["wanted"], end)


def check_answer(inputs, wanted, end):
    """The answer is bit for bit the one that the model gives to these rows alone; so is a failure's message."""
    if isinstance(end, TurnoutError):
        with pytest.raises(type(end)) as alone_end:
            answered(inputs, wanted)
        assert end.message == alone_end.value.message
        return
    alone = answered(inputs, wanted)
    assert list(end) == list(wanted)
    assert all(equal_bits(end[name], alone[name]) for name in wanted)


def check_order(callers, model):
    """Those of one shape are started in the order in which they came; nobody is started again but after a failure."""
    started = list(dict.fromkeys(member for members, *_ in model.calls for member in members))
    for width in (2, 3):
        alike = [member for member in started if callers[member]["width"] == width]
        assert alike == sorted(alike)
    again = {
        member for member, times in Counter(m for members, *_ in model.calls for m in members).items() if times > 1
    }
    for members, *_ in model.calls:
        if not any(callers[member]["bad"] for member in members) and set(members) & again:
            # Somebody beside them was bad the first time.
            firsts = next(earlier for earlier, *_ in model.calls if set(members) & set(earlier))
            assert any(callers[member]["bad"] for member in firsts)
