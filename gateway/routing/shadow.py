"""Copies of requests to versions whose answers nobody gets: compared with the champion's, counted and dropped.

Work here is behind the answer and at its own cost: a queue of its own for each version, one copy under way, a share
of the process's time. What does not fit is dropped and counted; a shadow that hangs costs the champion nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Final
from zlib import crc32

import msgspec

from gateway.observe.metrics import DROPPED_SHADOW, Metrics
from gateway.pressure import Pressure
from gateway.routing.compare import Verdict, verdicts
from gateway.routing.table import ShadowArm, Table
from gateway.serving.loading import Call
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import TurnoutError
from turnout.core.request import PredictRequest
from turnout.core.snapshot import BUCKETS
from turnout.core.status import Outcome, status_of
from turnout.core.tensor import TensorMap
from turnout.core.traceparent import child

_LOG: Final = logging.getLogger(__name__)

QUEUE_COPIES: Final = 256
QUEUE_BYTES: Final = 32 * 1024 * 1024
PROCESS_SHARE: Final = 0.10
WINDOW_S: Final = 1.0  # unused share is saved up for so long
GATHER_S: Final = 0.005  # one wake for several copies: each costs the requests between them some time
SLICE_S: Final = 0.0005  # so long quick copies run one after another before others have the loop


class _Copy(msgspec.Struct, frozen=True, gc=False):
    """A request that the champion answered, with its answer."""

    arm: ShadowArm
    inputs: TensorMap
    answer: TensorMap
    rows: int | None
    request_id: str
    traceparent: str | None
    size: int


class Budget:
    """Seconds of process time that may be spent, earned as time goes by at `share` seconds a second."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._credit_s = share * WINDOW_S
        self._since_s = monotonic_s()

    def spend(self, seconds: float) -> None:
        """Take note of what was spent; it may be more than there was."""
        self._earn()
        self._credit_s -= seconds

    def debt_s(self) -> float:
        """Return how long to wait until there is something to spend again; 0 if there is."""
        self._earn()
        return max(0.0, -self._credit_s / self.share)

    def _earn(self) -> None:
        now_s = monotonic_s()
        self._credit_s = min(self.share * WINDOW_S, self._credit_s + (now_s - self._since_s) * self.share)
        self._since_s = now_s


class Shadows:
    """All shadows of a table. While `pressure` makes the process shed callers, copies are dropped first."""

    def __init__(self, metrics: Metrics, pressure: Pressure) -> None:
        self._metrics = metrics
        self._pressure = pressure
        self._dropped = metrics.dropped(DROPPED_SHADOW)
        self._queues: dict[str, _CopyQueue] = {}

    def follow(self, table: Table) -> None:
        """Open a queue for each version that is a shadow of some route now, and close the others."""
        wanted = {arm.target.key for route in table.routes.values() for arm in route.shadows}
        for key in self._queues.keys() - wanted:
            self._dropped.add(self._queues.pop(key).close())
        for key in wanted - self._queues.keys():
            self._queues[key] = _CopyQueue(self._metrics, self._pressure)
        for queue in self._queues.values():
            queue.budget.share = PROCESS_SHARE / len(self._queues)

    def offer(self, arm: ShadowArm, request: PredictRequest, answer: TensorMap, rows: int | None) -> None:
        """Copy a request that the champion has answered, if it is in the sample; never waits."""
        if arm.sample < BUCKETS and crc32(request.request_id.encode(), arm.seed) % BUCKETS >= arm.sample:
            return
        size = sum(tensor.nbytes for tensor in (*request.inputs.values(), *answer.values()))
        copy = _Copy(arm, request.inputs, answer, rows, request.request_id, request.traceparent, size)
        queue = self._queues.get(arm.target.key)
        if queue is None or self._pressure.sheds or not queue.offer(copy):
            self._dropped.add()

    async def close(self) -> None:
        """Drop what waits and end the copy under way."""
        tasks = [queue.task for queue in self._queues.values()]
        for queue in self._queues.values():
            self._dropped.add(queue.close())
        self._queues.clear()
        if tasks:
            await asyncio.wait(tasks)


class _CopyQueue:
    """The queue of one shadow version, and the task that works it off one by one."""

    def __init__(self, metrics: Metrics, pressure: Pressure) -> None:
        self.budget = Budget(PROCESS_SHARE)
        self._metrics = metrics
        self._pressure = pressure
        self._dropped = metrics.dropped(DROPPED_SHADOW)
        self._copies: deque[_Copy] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def offer(self, copy: _Copy) -> bool:
        """Take a copy unless the queue is full."""
        if len(self._copies) >= QUEUE_COPIES or self._bytes + copy.size > QUEUE_BYTES:
            return False
        self._copies.append(copy)
        self._bytes += copy.size
        self._wake.set()
        return True

    def close(self) -> int:
        """Stop; return how many copies that drops."""
        self.task.cancel()
        return len(self._copies)

    async def _run(self) -> None:
        while True:
            if not self._copies:
                self._wake.clear()
                await self._wake.wait()
                await asyncio.sleep(GATHER_S)
            await asyncio.sleep(self.budget.debt_s())  # also lets others have the loop
            end_s = monotonic_s() + SLICE_S
            while self._copies and monotonic_s() < end_s and not self.budget.debt_s():
                await self._run_next()

    async def _run_next(self) -> None:
        copy = self._copies.popleft()
        self._bytes -= copy.size
        if self._pressure.sheds:
            self._dropped.add()
            return
        began_s = monotonic_s()
        work = _Metered(_work_off(copy, self._metrics))
        await work
        served = copy.arm.target.served
        elsewhere = served is not None and served.entry.runtime.uses_worker
        self.budget.spend(work.spent_s if elsewhere else monotonic_s() - began_s)


class _Metered:
    """Awaits a coroutine and adds up the time that it holds the loop."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self.spent_s = 0.0

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Any = self._work.send
        value: Any = None
        while True:
            began_s = monotonic_s()
            try:
                waits_for = resume(value)
            except StopIteration:
                return
            finally:
                self.spent_s += monotonic_s() - began_s
            try:
                value = yield waits_for
                resume = self._work.send
            except BaseException as error:  # noqa: BLE001  a cancellation belongs where the work waits
                value = error
                resume = self._work.throw


async def _work_off(copy: _Copy, metrics: Metrics) -> None:
    """Run one copy and count its outcome and the verdict of each row."""
    arm = copy.arm
    outcome = Outcome.OK
    try:
        counts = await _compared(copy)
    except asyncio.CancelledError:
        # Its shadow was closed under it. That is not the shadow's fault, so its rows get no verdict.
        metrics.shadow_requests(arm.route, arm.target.ref, Outcome.CANCELLED).add()
        raise
    except TurnoutError as error:
        outcome = status_of(error).outcome
    except Exception:  # noqa: BLE001  whatever it is, it must reach nobody's request
        _LOG.exception("request %s: shadow %s", copy.request_id, arm.target.key)
        outcome = Outcome.FAULT
    if outcome is not Outcome.OK:
        counts = {Verdict.ERROR: 1 if copy.rows is None else copy.rows}
    metrics.shadow_requests(arm.route, arm.target.ref, outcome).add()
    for verdict, rows in counts.items():
        metrics.shadow_rows(arm.route, arm.target.ref, verdict.value).add(rows)


async def _compared(copy: _Copy) -> dict[Verdict, int]:
    target = copy.arm.target
    served = target.ready()
    inputs, rows = target.inputs(copy.inputs)
    call = Call(
        copy.request_id,
        Deadline.after(copy.arm.deadline_s),
        child(copy.traceparent) if copy.traceparent is not None else None,
    )
    wanted = target.wanted(tuple(copy.answer))
    call.rows = rows
    answer = served.predict_now(inputs, wanted, call, rows)
    if answer is None:
        answer = await served.predict(inputs, wanted, call, rows)
    if served.predicted is not None:
        served.predicted.count(answer)
    return verdicts(copy.answer, answer, copy.arm.compare, copy.rows)
