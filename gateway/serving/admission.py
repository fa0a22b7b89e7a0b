"""How much of a version's work may be under way, and how much may wait, in order of arrival. It sheds, never blocks."""

import asyncio
import math
from collections import deque
from typing import Final

from gateway.pressure import Pressure
from gateway.serving.throughput import Throughput
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, Overloaded
from turnout.core.manifest import VersionLimits

_LONGEST_RETRY_S: Final = 3600


class Admission:
    """Bounds of one version: calls at once, and the rows and bytes that wait behind them.

    A request that is not answered within its turn calls `arrive`, then `enter` (or waits in a batcher, which tells its
    rows by `queue` and `unqueue`), and at the end `depart`, exactly once. Whoever was let in calls `leave` exactly
    once. A freed place goes to the longest waiting at once: nobody overtakes. `idle` is set while no call is under way.
    `at_once` is how many calls the model runs side by side.
    """

    def __init__(self, limits: VersionLimits, pressure: Pressure) -> None:
        self.limits = limits
        self.in_flight = limits.in_flight
        self.running = 0
        self.at_once = 1
        self.requests = 0
        self.rows = 0
        self.waiting_rows = 0
        self.waiting_bytes = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._pressure = pressure
        self._crowded = False
        self._throughput = Throughput()
        self._waiting: deque[tuple[asyncio.Future[None], int, int]] = deque()

    def sheds(self, rows: int, left_s: float) -> int:
        """Tell whether so many rows would find no room now, or no answer in the time left: when to come back, else 0.

        Who would run at once is taken, however little time it has.
        """
        if self.running >= self.in_flight or self.waiting_rows:
            limits = self.limits
            if self.waiting_rows + rows > limits.queue_rows or self.waiting_bytes > limits.queue_bytes:
                return _whole(self._throughput.row_s * rows)
        if self.requests >= self.at_once:
            late_s = self._throughput.expected_s(self.rows + rows) - left_s
            if late_s > 0:
                return _whole(late_s)
        return 0

    def arrive(self, rows: int, deadline: Deadline) -> bool:
        """Count a request until it departs, and tell whether it has to wait for others.

        Raises Overloaded where there is no room, or it would be answered late.
        """
        retry_s = self.sheds(rows, deadline.left_s)
        if retry_s:
            self._pressure.note_shed()
            raise Overloaded(self._why(), retry_after_s=retry_s)
        self._pressure.enter(rows)
        if not self.requests:
            self._throughput.began(monotonic_s())
        behind = self.requests >= self.at_once
        self.requests += 1
        self.rows += rows
        return behind

    def depart(self, rows: int, *, ran: bool, late: bool | None = None) -> None:
        """Count a request no more.

        One that `ran` tells how fast the version is; `late` of one that came behind others, how well that was foreseen.
        """
        self._pressure.leave(rows)
        if late is not None:
            self._throughput.judged(late=late)
        if ran:
            self._throughput.left(rows, self.rows, monotonic_s())
        self.requests -= 1
        self.rows -= rows

    def try_enter(self) -> bool:
        """Take a place if one is free; never waits."""
        if self.running >= self.in_flight:
            return False
        self._take()
        return True

    def queue(self, rows: int, size: int = 0) -> None:
        """Count rows that wait from now on, and their bytes. Raises Overloaded when there is no room for them."""
        limits = self.limits
        if self.waiting_rows + rows > limits.queue_rows or self.waiting_bytes + size > limits.queue_bytes:
            self._pressure.note_shed()
            raise Overloaded(self._why(), retry_after_s=_whole(self._throughput.row_s * rows))
        self.waiting_rows += rows
        self.waiting_bytes += size
        self._tell()

    def unqueue(self, rows: int, size: int = 0) -> None:
        """Count no longer what `queue` counted."""
        self.waiting_rows -= rows
        self.waiting_bytes -= size
        self._tell()

    async def enter(self, rows: int, deadline: Deadline, size: int = 0) -> None:
        """Wait for a place. Raises Overloaded when the queue is full, DeadlineExceeded when the wait is too long.

        A caller that is cancelled while it waits leaves no trace.
        """
        if self.try_enter():
            return
        self.queue(rows, size)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (place, rows, size)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(deadline.left_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # the place came in the same turn as the end of the wait
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self.unqueue(rows, size)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("the deadline passed while the request waited for the model") from None
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._let_in()
        if not self.running:
            self.idle.set()

    def rebound(self, limits: VersionLimits) -> None:
        """Take new bounds; who waits and now fits is let in, who was let in stays."""
        self.limits = limits
        self.in_flight = limits.in_flight
        self._let_in()

    def _why(self) -> str:
        return f"{self.rows} rows are with the model or wait for it: no room, or no answer before the deadline"

    def _take(self) -> None:
        self.running += 1
        self.idle.clear()
        self._tell()

    def _let_in(self) -> None:
        while self._waiting and self.running < self.in_flight:
            place, rows, size = self._waiting.popleft()
            self.unqueue(rows, size)
            if not place.done():  # else its caller was cancelled and has not run since
                self._take()
                place.set_result(None)
        self._tell()

    def _tell(self) -> None:
        """Say whether the version is crowded where that has changed."""
        crowded = self.waiting_rows > 0 or self.running >= self.in_flight
        if crowded is not self._crowded:
            self._crowded = crowded
            self._pressure.crowd(1 if crowded else -1)


def _whole(seconds: float) -> int:
    """Return whole seconds to come back after, as `retry-after` has them: at least one."""
    return max(1, min(_LONGEST_RETRY_S, math.ceil(seconds)))
