"""The batcher over a model that a test holds up: what waits goes together, in order, and everyone for itself."""

import asyncio
import gc
import weakref

import numpy as np
import pytest

from gateway.limits import Limits
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving import batcher as batcher_module
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.loading import Call
from tests.fakes import SIGNATURE, numbers, scored
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Internal, InvalidInput, ModelFault, Overloaded, WorkerLost
from turnout.core.ids import VersionRef
from turnout.core.manifest import VersionLimits
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

ALL = ("label", "score")


class Held:
    """A model whose calls end when a test says so, each with its answer or an error."""

    def __init__(self):
        self.calls = []
        self.ends = asyncio.Queue()
        self.left = 0

    async def run(self, inputs, wanted, call, rows):
        """Wait for the test; answer the wanted outputs."""
        self.calls.append((inputs, tuple(wanted), call, rows))
        try:
            end = await self.ends.get()
        except asyncio.CancelledError:
            self.left += 1
            raise
        call.predict_s = 0.25
        if isinstance(end, Exception):
            try:
                raise end
            finally:
                del end  # it and this frame would hold each other
        answer = scored(inputs)
        return {name: answer[name] for name in wanted}

    @property
    def sent(self):
        """The numbers of each call so far."""
        return [call[0]["x"].array.tolist() for call in self.calls]


class Bench:
    """A batcher, its model, its bounds and its numbers."""

    def __init__(self, folder, *, signature=SIGNATURE, max_rows=8, calls_at_once=1, queue_rows=100):
        self.model = Held()
        self.admission = Admission(VersionLimits(queue_rows=queue_rows), Pressure(Limits()))
        folder.mkdir(exist_ok=True)
        self.metrics = Metrics(folder, 0).version(VersionRef("m", 1))
        self.batcher = Batcher(
            self.admission, self.metrics, self.model.run, signature, max_rows=max_rows, calls_at_once=calls_at_once
        )

    def ask(self, *values, wanted=ALL, within_s=60.0, trace=None, inputs=None):
        """Start a request."""
        call = Call(f"id-{values[0]:g}", Deadline.after(within_s), trace)
        inputs = inputs or {"x": numbers(*values)}
        task = asyncio.create_task(self.batcher.predict(inputs, wanted, call, inputs["x"].rows))
        task.call = call
        return task

    async def end(self, *ends):
        """Let calls end, one after another; None is an answer."""
        for end in ends:
            self.model.ends.put_nowait(end)
            await turn()


async def turn():
    """Let every ready task run."""
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.fixture
def bench(tmp_path):
    """A batcher of eight rows over a model that runs one call at a time."""
    return Bench(tmp_path / "metrics")


def score(task):
    """Return the score that a task was answered."""
    return task.result()["score"].array.tolist()


async def test_idle_model_is_called_at_once(bench):
    """Nothing waits for others while the model is idle, and the caller's own call reaches it."""
    task = bench.ask(1.0)
    await asyncio.sleep(0)
    assert bench.model.sent == [[1.0]]
    assert bench.model.calls[0][2] is task.call
    await bench.end(None)
    assert score(task) == [1.0]
    assert task.call.queue_s == 0


async def test_what_waits_goes_together(bench):
    """While the model is busy requests gather; they are one call then, and each gets its own rows as views."""
    tasks = [bench.ask(1.0), bench.ask(2.0, 3.0), bench.ask(4.0), bench.ask(5.0)]
    await turn()
    assert bench.model.sent == [[1.0]]
    assert (bench.admission.running, bench.admission.waiting_rows) == (1, 4)
    assert bench.metrics.queue_rows.get() == 4
    await bench.end(None)
    assert bench.model.sent == [[1.0], [2.0, 3.0, 4.0, 5.0]]
    assert (bench.admission.running, bench.admission.waiting_rows) == (1, 0)
    await bench.end(None)
    assert [score(task) for task in tasks] == [[1.0], [2.0, 3.0], [4.0], [5.0]]
    assert tasks[1].result()["score"].array.base is tasks[2].result()["score"].array.base
    assert tasks[3].call.predict_s == 0.25
    assert tasks[3].call.queue_s > 0
    assert bench.admission.idle.is_set()


async def test_rows_are_counted_not_requests(bench):
    """A call has at most so many rows; the first that does not fit closes it, and a larger one goes alone, in turn."""
    tasks = [bench.ask(0.0)]
    sizes = [3, 4, 2, 20, 1, 1]
    tasks += [bench.ask(*(float(number),) * size) for number, size in enumerate(sizes, 1)]
    await turn()
    await bench.end(*[None] * 5)
    assert [len(call) for call in bench.model.sent] == [1, 7, 2, 20, 2]
    assert all(score(task) == [float(number)] * size for task, number, size in zip(tasks, range(7), [1, *sizes]))  # noqa: B905


async def test_bytes_close_a_call(bench, monkeypatch):
    """Rows of many bytes are gathered in smaller number: the copy is made on the loop."""
    monkeypatch.setattr(batcher_module, "MAX_BYTES", 16)
    for number in range(6):
        bench.ask(float(number))
    await turn()
    await bench.end(None, None, None)
    assert bench.model.sent == [[0.0], [1.0, 2.0], [3.0, 4.0], [5.0]]
    await bench.end(None)


async def test_outputs_are_those_that_each_wants(bench):
    """One call computes what anybody wants, and each gets what it wants, in its own order."""
    tasks = [bench.ask(0.0)]
    tasks += [bench.ask(1.0, wanted=("score",)), bench.ask(2.0, wanted=("score",)), bench.ask(3.0, wanted=ALL[::-1])]
    await turn()
    await bench.end(None, None)
    assert bench.model.calls[1][1] == ALL
    assert [list(task.result()) for task in tasks[1:]] == [["score"], ["score"], ["score", "label"]]
    alike = [bench.ask(float(number), wanted=("score",)) for number in range(3)]
    await turn()
    await bench.end(None, None)
    assert [call[1] for call in bench.model.calls[2:]] == [("score",), ("score",)]
    assert [score(task) for task in alike] == [[0.0], [1.0], [2.0]]


async def test_other_shapes_wait_for_their_own_call(tmp_path):
    """What does not fit beside the oldest is passed over, and is the oldest soon."""
    wide = Signature((TensorSpec("x", Datatype.FP64, (-1, -1)),), SIGNATURE.outputs)
    bench = Bench(tmp_path / "wide", signature=wide)
    shapes = [(1, 2), (1, 3), (2, 2), (1, 3), (1, 2)]
    tasks = [bench.ask(1.0, inputs={"x": Tensor.of(np.ones(shape))}) for shape in [(1, 2), *shapes]]
    await turn()
    await bench.end(None, None, None)
    assert [call[0]["x"].shape for call in bench.model.calls] == [(1, 2), (4, 2), (2, 3)]
    assert [task.result()["score"].shape for task in tasks[1:]] == shapes


async def test_missing_text_and_received_bytes_are_kept(tmp_path):
    """BYTES go together with their missing elements, and their raw form is put together, not made anew."""
    signature = Signature((TensorSpec("x", Datatype.BYTES, (-1,), nullable=True),), SIGNATURE.outputs)
    bench = Bench(tmp_path / "text", signature=signature)
    received = Tensor.from_raw("x", Datatype.BYTES, (2,), b"\1\0\0\0a\xff\xff\xff\xff")
    for _ in range(3):
        bench.ask(1.0, inputs={"x": received})
    await turn()
    await bench.end(None)
    joined = bench.model.calls[1][0]["x"]
    assert joined.array.tolist() == [b"a", None, b"a", None]
    assert joined.raw() == bytes(received.raw()) * 2
    assert Tensor.stacked([received, Tensor.of(received.array)]).raw() == bytes(received.raw()) * 2
    await bench.end(InvalidInput("no"), InvalidInput("no"), InvalidInput("no"))


@pytest.mark.parametrize("error", [InvalidInput("row 1 is refused"), ModelFault("it raised")], ids=lambda e: e.code)
async def test_the_bad_one_fails_alone(bench, error):
    """A call that one member makes fail is made again in halves, until that one stands alone."""
    tasks = [bench.ask(float(number)) for number in range(5)]
    await turn()
    await bench.end(None)
    await bench.end(error, None, error, error, None)
    assert bench.model.sent[1:] == [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0], [3.0, 4.0], [3.0], [4.0]]
    assert [score(task) for task in (tasks[1], tasks[2], tasks[4])] == [[1.0], [2.0], [4.0]]
    with pytest.raises(type(error), match=error.message):
        await tasks[3]
    assert tasks[3].call.predict_s == 0.75
    assert bench.admission.idle.is_set()


@pytest.mark.parametrize("error", [WorkerLost("gone"), Overloaded("too much"), Internal("?"), OSError("?")], ids=repr)
async def test_a_failure_through_nobodys_fault_is_everybodys(bench, error):
    """A lost worker is told to all members at once, each in an exception of its own, and nothing is asked again."""
    tasks = [bench.ask(float(number)) for number in range(4)]
    await turn()
    await bench.end(None, error)
    ends = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert {type(end) for end in ends} == {type(error)}
    assert len({id(end) for end in ends}) == 3
    assert [end.args for end in ends] == [error.args] * 3
    assert len(bench.model.calls) == 2


async def test_who_left_or_is_late_is_not_started(bench):
    """Callers that left while they waited, and those whose time is over, are in no call; the late are told in time."""
    first = bench.ask(0.0)
    leaver, late, stays = bench.ask(1.0), bench.ask(2.0, within_s=0.01), bench.ask(3.0)
    await turn()
    leaver.cancel()
    with pytest.raises(DeadlineExceeded, match="waited for the model"):
        await late
    assert bench.admission.waiting_rows == 1
    await bench.end(None, None)
    assert bench.model.sent == [[0.0], [3.0]]
    assert (score(first), score(stays)) == ([0.0], [3.0])
    assert leaver.cancelled()


async def test_who_leaves_a_call_under_way_hurts_nobody(bench):
    """The call goes on for the others, whether one left or its time was over; its deadline is the last one's."""
    bench.ask(0.0)
    leaver, late, stays = bench.ask(1.0), bench.ask(2.0, within_s=0.02), bench.ask(3.0, within_s=70)
    await turn()
    await bench.end(None)
    leaver.cancel()
    with pytest.raises(DeadlineExceeded, match="while the model ran"):
        await late
    assert bench.model.calls[1][2].deadline.at_s == stays.call.deadline.at_s
    await bench.end(None)
    assert score(stays) == [3.0]
    assert bench.model.left == 0


async def test_a_call_for_nobody_is_given_up(bench):
    """When the last member is gone the call is cancelled, and its place is free for who waits."""
    bench.ask(0.0)
    leavers = [bench.ask(1.0), bench.ask(2.0)]
    await turn()
    await bench.end(None)
    stays = bench.ask(3.0)
    await turn()
    for leaver in leavers:
        leaver.cancel()
    await turn()
    assert bench.model.left == 1
    assert bench.model.sent[2:] == [[3.0]]
    await bench.end(None)
    assert score(stays) == [3.0]
    assert bench.admission.idle.is_set()


async def test_the_tightest_deadline_closes_the_call(bench):
    """What is known to take longer with more rows is not made so long that the most hurried member is late."""
    for rows in (1, 8):
        task = bench.ask(*[0.0] * rows)
        await turn()
        await bench.end(None)
        await task
    bench.batcher._expected_s.update({1: 0.001, 2: 0.001, 3: 30.0})
    bench.ask(0.0)
    hurried, *others = [bench.ask(1.0, within_s=5), *(bench.ask(float(number)) for number in range(2, 6))]
    await turn()
    await bench.end(None, None, None)
    assert bench.model.sent[2:] == [[0.0], [1.0, 2.0, 3.0], [4.0, 5.0]]
    assert bench.batcher._expected_s[3] == 27.0  # doubted, so that it is tried again one day
    assert [score(task) for task in (hurried, *others)] == [[float(number)] for number in range(1, 6)]


async def test_the_first_trace_goes_along(bench):
    """A call that serves several traces carries the oldest member's that has one."""
    bench.ask(0.0, trace="00-a")
    for trace in (None, "00-b", "00-c"):
        bench.ask(1.0, trace=trace)
    await turn()
    await bench.end(None, None)
    assert [call[2].traceparent for call in bench.model.calls] == ["00-a", "00-b"]


@pytest.mark.parametrize("fails", [False, True], ids=["answered", "failed"])
async def test_requests_are_freed_with_their_answers(bench, fails):
    """Nothing of a gathered request waits for the collector of cycles: under load that would be thousands."""
    gc.collect()
    gc.disable()
    try:
        tasks = [bench.ask(float(number)) for number in range(4)]
        await turn()
        await bench.end(None)
        for _ in range(7 if fails else 1):
            await bench.end(ModelFault("it raised") if fails else None)
        arrays = [weakref.ref(call[0]["x"].array) for call in bench.model.calls]
        assert [task.exception() is not None for task in tasks] == [False, fails, fails, fails]
        bench.model.calls.clear()
        del tasks
        await turn()
        assert [array() is None for array in arrays] == [True] * len(arrays)
    finally:
        gc.enable()


async def test_several_calls_at_once(tmp_path):
    """A model that runs two calls at once gets two; requests gather only once both are under way."""
    bench = Bench(tmp_path / "two", calls_at_once=2)
    tasks = [bench.ask(float(number)) for number in range(6)]
    await turn()
    assert bench.model.sent == [[0.0], [1.0]]
    await bench.end(None)
    assert bench.model.sent[2:] == [[2.0, 3.0, 4.0, 5.0]]
    await bench.end(None, None)
    assert [score(task) for task in tasks] == [[float(number)] for number in range(6)]


async def test_bounds_of_the_version_hold(bench):
    """`in_flight` bounds calls, `queue_rows` the rows that wait for one; new bounds take effect at once."""
    bench.admission.rebound(VersionLimits(in_flight=1, queue_rows=2))
    tasks = [bench.ask(float(number)) for number in range(3)]
    await turn()
    with pytest.raises(Overloaded):
        await bench.ask(9.0)
    bench.batcher.rebound(1)
    await bench.end(None, None, None)
    assert bench.model.sent == [[0.0], [1.0], [2.0]]
    assert [score(task) for task in tasks] == [[0.0], [1.0], [2.0]]
