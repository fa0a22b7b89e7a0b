"""Gathers requests that wait for a busy model into one call, and hands each its own rows of the answer.

No timer: an idle model is called at once, a busy one takes what has gathered by the time it is free. It must not decide
whether a version may be batched, nor retry a call that failed through no member's fault.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from gateway.observe.metrics import VersionMetrics
from gateway.serving.admission import Admission
from gateway.serving.loading import Call
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault
from turnout.core.signature import Signature
from turnout.core.tensor import Tensor, TensorMap

Answer: TypeAlias = dict[str, Tensor]
Run: TypeAlias = Callable[[TensorMap, Sequence[str], Call, int], Awaitable[Answer]]

MAX_BYTES: Final = 8 * 1024 * 1024  # gathered inputs are copied on the loop: so much holds it for some milliseconds
# In one turn of the loop the answers of the last call go out, in the next those who got them ask again: measured, they
# would else miss each call, and every second call serve one half of the clients.
_TURNS_BEFORE: Final = 2
_LEARNT: Final = 0.2  # weight of the latest call in what is expected of the next
_DOUBTED: Final = 0.9  # what closed a batch is expected a little less of the next time, lest it is never tried again


class Batcher:
    """The requests that wait for one version, in order of arrival.

    `run` is one call of the model, which has `signature`. At most `calls_at_once` are under way, each with a place of
    `admission`. Only a request that is larger by itself makes a call of more than `max_rows` rows.
    """

    def __init__(
        self,
        admission: Admission,
        metrics: VersionMetrics,
        run: Run,
        signature: Signature,
        *,
        max_rows: int,
        calls_at_once: int,
    ) -> None:
        self._admission = admission
        self._metrics = metrics
        self._run = run
        self._outputs = tuple(spec.name for spec in signature.outputs)
        # Checked inputs of one version differ in nothing else: these tell which fit into one call.
        self._free = tuple(spec.name for spec in signature.inputs if -1 in spec.shape[1:])
        self.max_rows = max_rows
        self._calls_at_once = calls_at_once
        self._waiting: OrderedDict[_Member, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._expected_s: dict[int, float] = {}

    async def predict(self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int) -> Answer:
        """Have checked rows answered: by an idle model alone and at once, else together with what waits as well.

        Raises Overloaded, DeadlineExceeded, and what the model raises for these rows alone. Who leaves, or whose
        deadline passes, before a call starts is not in it; a call under way goes on for the others.
        """
        if not self._waiting and self._enter():
            try:
                return await self._timed(inputs, wanted, call, rows)
            finally:
                self._leave()
        member = self._queue(inputs, wanted, call, rows)
        try:
            return await member.answer
        finally:
            member.leave()
            if member in self._waiting:
                self._unqueue(member)
            del member  # else a failure, its traceback and this would hold each other, and the tensors

    def rebound(self, max_rows: int) -> None:
        """Take a new bound, and the admission's new ones; who waits and now fits is served."""
        self.max_rows = max_rows
        while self._waiting and self._enter():
            self._begin()

    def _enter(self) -> bool:
        return self._admission.running < self._calls_at_once and self._admission.try_enter()

    def _leave(self) -> None:
        """Let who waits have the place, or give it back."""
        bound = min(self._calls_at_once, self._admission.in_flight)
        if self._waiting and self._admission.running <= bound:
            self._begin()
        else:
            self._admission.leave()

    def _begin(self) -> None:
        task = asyncio.get_running_loop().create_task(self._serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        """Answer what has gathered, in a place that was taken for it."""
        try:
            for _ in range(_TURNS_BEFORE):
                if self._admission.waiting_rows < self.max_rows:
                    await asyncio.sleep(0)
            members = self._gather()
            if members:
                await _Batch(members, self._ask).answer()
        finally:
            self._leave()

    def _gather(self) -> list["_Member"]:
        """Take who comes next, and those behind it that fit into the same call. Nobody overtakes its like."""
        taken: list[_Member] = []
        rows = size = 0
        first_ends_s, now_s = math.inf, monotonic_s()
        for member in self._waiting:
            if not member.waits(now_s) or (taken and member.shape != taken[0].shape):
                continue
            if taken and (
                rows + member.rows > self.max_rows
                or size + member.size > MAX_BYTES
                or self._makes_late(first_ends_s - now_s, rows, rows + member.rows)
            ):
                break
            taken.append(member)
            rows += member.rows
            size += member.size
            first_ends_s = min(first_ends_s, member.call.deadline.at_s)
        for member in taken:
            self._unqueue(member)
        return taken

    def _makes_late(self, left_s: float, rows: int, more_rows: int) -> bool:
        """Tell whether `more_rows` would take the one with the tightest deadline past it, and `rows` would not."""
        size = more_rows.bit_length()
        late = self._expected_s.get(rows.bit_length(), 0.0) < left_s < self._expected_s.get(size, 0.0)
        if late:
            self._expected_s[size] *= _DOUBTED
        return late

    def _queue(self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int) -> "_Member":
        size = sum(tensor.nbytes for tensor in inputs.values())
        self._admission.queue(rows, size)
        self._metrics.queue_rows.add(rows)
        member = _Member(inputs, wanted, call, rows, size, tuple(inputs[name].shape[1:] for name in self._free))
        self._waiting[member] = None
        return member

    def _unqueue(self, member: "_Member") -> None:
        del self._waiting[member]
        self._admission.unqueue(member.rows, member.size)
        self._metrics.queue_rows.add(-member.rows)
        member.call.queue_s = monotonic_s() - member.since_s
        self._metrics.queue_seconds.add(member.call.queue_s)

    async def _ask(self, members: Sequence["_Member"]) -> Answer:
        """Call the model once for all members."""
        first = members[0]
        inputs, wanted = first.inputs, first.wanted
        if len(members) > 1:
            inputs = {name: Tensor.stacked([member.inputs[name] for member in members]) for name in first.inputs}
            wanted = self._union(members)
        deadline = Deadline(max(member.call.deadline.at_s for member in members))
        traces = (member.call.traceparent for member in members if member.call.traceparent is not None)
        call = Call(first.call.request_id, deadline, next(traces, None))
        try:
            return await self._timed(inputs, wanted, call, sum(member.rows for member in members))
        finally:
            for member in members:
                member.call.predict_s += call.predict_s

    def _union(self, members: Sequence["_Member"]) -> Sequence[str]:
        if all(member.wanted is members[0].wanted for member in members):
            return members[0].wanted
        wanted = {name for member in members for name in member.wanted}
        return tuple(name for name in self._outputs if name in wanted)

    async def _timed(self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int) -> Answer:
        outputs = await self._run(inputs, wanted, call, rows)
        size = rows.bit_length()
        expected_s = self._expected_s.get(size, call.predict_s)
        self._expected_s[size] = expected_s + _LEARNT * (call.predict_s - expected_s)
        return outputs


class _Member:
    """A request that waits, or is in a call with others. `shape` tells which fit together."""

    __slots__ = ("_timer", "answer", "batch", "call", "inputs", "rows", "shape", "since_s", "size", "wanted")

    def __init__(
        self,
        inputs: TensorMap,
        wanted: Sequence[str],
        call: Call,
        rows: int,
        size: int,
        shape: tuple[tuple[int, ...], ...],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.inputs = inputs
        self.wanted = wanted
        self.call = call
        self.rows = rows
        self.shape = shape
        self.size = size
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.batch: _Batch | None = None
        self.since_s = monotonic_s()
        self._timer = loop.call_later(call.deadline.left_s, self._expire)

    def waits(self, now_s: float) -> bool:
        """Tell whether an answer is of use; one whose deadline has passed is told so."""
        if self.call.deadline.at_s <= now_s:
            self._expire()
        return not self.answer.done()

    def leave(self) -> None:
        """End the wait, whatever it ended in."""
        self._timer.cancel()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()  # seen, even by a caller that left in the very turn in which it came
        batch, self.batch = self.batch, None  # or they would keep each other, and all their tensors, for the collector
        if batch is not None:
            batch.left()

    def fail(self, error: Exception) -> None:
        """Tell a failure, in an exception of its own: each caller raises it anew."""
        if self.answer.done():
            return
        kind = type(error)
        own = kind.__new__(kind, *error.args)  # not by its constructor, which may want anything
        own.__dict__.update(error.__dict__)
        own.__cause__ = error.__cause__
        self.answer.set_exception(own)

    def _expire(self) -> None:
        while_ = "the request waited for the model" if self.batch is None else "the model ran"
        self.fail(DeadlineExceeded(f"the deadline passed while {while_}"))


class _Batch:
    """Members that are answered by one call; by smaller ones where one of them makes it fail."""

    def __init__(self, members: list[_Member], ask: Callable[[Sequence[_Member]], Awaitable[Answer]]) -> None:
        self._members = members
        self._ask = ask
        self._task = asyncio.current_task()
        for member in members:
            member.batch = self

    def left(self) -> None:
        """Take note that a member is gone: a call for nobody is given up."""
        if self._task is not None and not self._task.done() and all(member.answer.done() for member in self._members):
            self._task.cancel()

    async def answer(self) -> None:
        """Answer every member that still waits."""
        groups = deque([self._members])
        while groups:
            now_s = monotonic_s()
            members = [member for member in groups.popleft() if member.waits(now_s)]
            if not members:
                continue
            try:
                _share(await self._ask(members), members)
            except Exception as error:  # noqa: BLE001  whatever it is, somebody waits to hear of it
                if len(members) > 1 and isinstance(error, ModelFault | InvalidInput):
                    half = len(members) // 2
                    groups.extendleft((members[half:], members[:half]))
                    continue
                for member in members:
                    member.fail(error)


def _share(outputs: Answer, members: Sequence[_Member]) -> None:
    """Give each member its own rows of what it wants, as views."""
    at = 0
    for member in members:
        end = at + member.rows
        if not member.answer.done():
            member.answer.set_result({name: outputs[name].row_slice(at, end) for name in member.wanted})
        at = end
