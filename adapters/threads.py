"""Runs a blocking model for an asyncio caller: inline where it is measured quick, else on a few threads of its own.

A quick model costs less than the hop to a thread; a slow one would hold up every other request of the loop. It must
not batch, retry or time calls out: that is decided above.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from adapters.interface import BoundedModel, QuickModel, SyncModel, WatchedModel
from turnout.core.clock import monotonic_s
from turnout.core.errors import DeadlineExceeded, ModelFault, NotReady, Overloaded, WorkerLost
from turnout.core.request import CallContext
from turnout.core.tensor import TensorMap

QUICK_S: Final = 200e-6  # below it a call runs inline
SLOW_S: Final = 300e-6  # above it an inline model goes back to its threads: the gap keeps it from flapping
CROWDED_S: Final = 10e-3  # up to here a long wall time may be the wait for the interpreter
TRIAL_CALLS: Final = 8  # so many inline calls tell which it is
STALL_S: Final = 0.1  # one inline call this long is enough to go back at once
BLOCK_CALLS: Final = 128
MAX_BLOCK_CALLS: Final = 1 << 16
CLOSE_S: Final = 10.0
HANGS_S: Final = 10.0  # a call so long past its deadline is taken to hang


class Pace:
    """Whether calls of one size run inline, from blocks of their latest durations in seconds.

    On threads, wall time also holds the wait for the interpreter, so a block is judged by the p99 of processor time
    and the median of wall time (a model that sleeps uses no processor); where the loop is so busy that the median says
    little, a few calls are tried inline. Inline, wall time also holds what a busy machine takes from the process now
    and then, some milliseconds at a time, so a block is judged by its p95 and mean.
    """

    __slots__ = ("_block", "_cpu", "_trial", "_wall", "inline")

    def __init__(self) -> None:
        self.inline = False
        self._trial = False
        self._wall: list[float] = []
        self._cpu: list[float] = []
        self._block = BLOCK_CALLS

    def ran_inline(self, wall_s: float) -> None:
        """Take note of an inline call; go back to threads where a block is slow, or one call stalls."""
        self._wall.append(wall_s)
        whole = len(self._wall) >= (TRIAL_CALLS if self._trial else BLOCK_CALLS)
        if wall_s < STALL_S and not whole:
            return
        slow = _quantile(self._wall, 0.5) >= QUICK_S if self._trial else _is_slow(self._wall)
        if wall_s >= STALL_S or slow:
            self.inline = False
            self._block = min(2 * self._block, MAX_BLOCK_CALLS)
        self._trial = False
        self._wall.clear()

    def ran_on_thread(self, wall_s: float, cpu_s: float) -> bool:
        """Take note of a call on a thread; go inline where a whole block was quick, and tell."""
        if self.inline:
            return False
        self._wall.append(wall_s)
        self._cpu.append(cpu_s)
        if len(self._wall) < self._block:
            return False
        usual_s = _quantile(self._wall, 0.5)
        self.inline = _quantile(self._cpu, 0.99) < QUICK_S and usual_s < CROWDED_S
        self._trial = self.inline and usual_s >= QUICK_S
        self._wall.clear()
        self._cpu.clear()
        return self.inline

    def try_inline(self) -> None:
        """Go inline for a few calls, to see."""
        self.inline = self._trial = True
        self._wall.clear()
        self._cpu.clear()


class _Call:
    """A call on its way to a thread and back. The future belongs to `loop`."""

    __slots__ = ("context", "future", "hangs", "inputs", "loop", "outputs", "pace", "runs")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pace: Pace,
        inputs: TensorMap,
        outputs: Sequence[str],
        context: CallContext,
    ) -> None:
        self.loop = loop
        self.future: asyncio.Future[TensorMap] = loop.create_future()
        self.pace = pace
        self.inputs = inputs
        self.outputs = outputs
        self.context = context
        self.runs = False
        self.hangs = False


class ThreadedModel(QuickModel, BoundedModel, WatchedModel):
    """A `SyncModel` as asyncio callers need it.

    A call whose caller left, or whose deadline passed, before it started is not run. At most `waiting` calls wait.
    A call on a thread that is 10 s past its deadline counts as the model's loss, until it ends after all.
    """

    def __init__(self, model: SyncModel, *, threads: int | None = None, waiting: int = 1024) -> None:
        self.signature = model.signature
        self.properties: Mapping[str, str] = model.properties
        self._model = model
        self._waiting = waiting
        self._paces: dict[int, Pace] = {}
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._hanging = 0
        self._lost: Callable[[str, int], None] = lambda _reason, _calls: None
        self._back: Callable[[], None] = lambda: None
        count = threads or max(2, min(8, os.cpu_count() or 1))
        # Two calls on one processor take twice as long each, and hold half of what one call would.
        self.calls_at_once = min(count, len(os.sched_getaffinity(0)))
        # Daemon threads: a model that hangs must not keep the process from leaving.
        self._threads = [threading.Thread(target=self._serve, name="model", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    async def predict(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap:
        """Run the model once.

        Raises DeadlineExceeded, Overloaded, WorkerLost while a call hangs, NotReady once closed, and what the model
        raises.
        """
        answer = self.predict_now(inputs, outputs, context)
        return answer if answer is not None else await self._on_thread(inputs, outputs, context)

    def predict_now(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap | None:
        """Run the model on the caller's thread if it is quick for inputs of this size, else return None.

        Raises DeadlineExceeded, and what the model raises.
        """
        size = 0
        for tensor in inputs.values():
            size = tensor.array.size.bit_length()
            break
        pace = self._paces.get(size)
        if pace is None or not pace.inline:
            return None
        started_s = monotonic_s()
        if context.deadline.at_s <= started_s:
            raise DeadlineExceeded("the deadline passed before the model started")
        try:
            return _run(self._model, inputs, outputs)
        finally:
            pace.ran_inline(monotonic_s() - started_s)

    def watch(self, lost: Callable[[str, int], None], back: Callable[[], None]) -> None:
        """Ask to be told when a call hangs, and when it ended after all."""
        self._lost, self._back = lost, back

    async def close(self) -> None:
        """Let running calls end (at most 10 s), then close the model; a call that still hangs keeps it open."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._join)

    def _join(self) -> None:
        end_s = monotonic_s() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - monotonic_s()))
        if not any(thread.is_alive() for thread in self._threads):
            self._model.close()

    def _pace(self, inputs: TensorMap) -> Pace:
        size = next(iter(inputs.values())).array.size.bit_length() if inputs else 0
        pace = self._paces.get(size)
        if pace is None:
            pace = self._paces[size] = Pace()
        return pace

    def _quicken_smaller(self, quick: Pace) -> None:
        """Try smaller inputs inline as well: while requests are gathered, few calls are as small as one request."""
        limit = next(size for size, pace in self._paces.items() if pace is quick)
        for size, pace in self._paces.items():
            if size < limit and not pace.inline:
                pace.try_inline()

    async def _on_thread(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap:
        if self._closed:
            raise NotReady("the version is closed")
        if self._hanging:
            raise WorkerLost("a call of the model hangs")
        if self._queue.qsize() >= self._waiting:
            raise Overloaded(f"{self._waiting} calls wait for the model")
        call = _Call(asyncio.get_running_loop(), self._pace(inputs), inputs, outputs, context)
        self._queue.put(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.runs:
                call.loop.call_later(max(0.0, context.deadline.left_s) + HANGS_S, self._look_after, call)
            raise

    def _look_after(self, call: _Call) -> None:
        """See whether a call that nobody waits for any more has ended."""
        if call.runs:
            call.hangs = True
            self._hanging += 1
            if self._hanging == 1:
                self._lost(f"a call hangs: it is {HANGS_S:g} s past its deadline", 1)

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            call.runs = True  # said before the look: whoever cancels after it sees that the call runs
            if call.future.cancelled():
                call.runs = False
                continue
            self._answer(call)
            del call  # the next wait must not keep this call's tensors alive

    def _answer(self, call: _Call) -> None:
        result: TensorMap | None = None
        error: Exception | None = None
        wall_s, cpu_s = monotonic_s(), time.thread_time()
        try:
            if call.context.deadline.at_s <= wall_s:
                call.runs = False
                raise DeadlineExceeded("the deadline passed before the model started")
            result = _run(self._model, call.inputs, call.outputs)
        except Exception as caught:  # noqa: BLE001  whatever the model raises travels to the caller
            error = caught
        wall_s, cpu_s = monotonic_s() - wall_s, time.thread_time() - cpu_s
        try:
            call.loop.call_soon_threadsafe(self._deliver, call, result, error, wall_s, cpu_s)
        except RuntimeError:
            return  # the loop is closed: nobody is left to answer

    def _deliver(
        self, call: _Call, result: TensorMap | None, error: Exception | None, wall_s: float, cpu_s: float
    ) -> None:
        if call.runs:
            call.runs = False
            if call.pace.ran_on_thread(wall_s, cpu_s):
                self._quicken_smaller(call.pace)
        if call.hangs:
            self._hanging -= 1
            if not self._hanging:
                self._back()
        if call.future.done():
            return
        if error is not None:
            call.future.set_exception(error)
        else:
            assert result is not None
            call.future.set_result(result)


def _run(model: SyncModel, inputs: TensorMap, outputs: Sequence[str]) -> TensorMap:
    """Call the model; what would end a thread or a coroutine instead of failing the call becomes ModelFault."""
    try:
        answer: TensorMap | None = model.predict(inputs, outputs)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        raise ModelFault(f"the model raised {type(error).__name__}: {error}") from error
    if answer is None:
        raise ModelFault("the model answered nothing")
    return answer


def _is_slow(wall_s: list[float]) -> bool:
    return sum(wall_s) / len(wall_s) >= SLOW_S or _quantile(wall_s, 0.95) >= SLOW_S


def _quantile(durations_s: list[float], share: float) -> float:
    ordered = sorted(durations_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
