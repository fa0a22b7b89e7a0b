"""How much of a version's work may be under way, and how much may wait, in order of arrival. It sheds, never blocks."""

import asyncio
from collections import deque

from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded


class Admission:
    """Bounds of one version: `in_flight` calls at once, `queue_rows` rows waiting behind them.

    Whoever was let in calls `leave` exactly once. A freed place goes to the longest waiting at once: nobody overtakes.
    Rows that wait in a batcher are told by `queue` and `unqueue`. `idle` is set while no call is under way.
    """

    def __init__(self, in_flight: int, queue_rows: int) -> None:
        self.in_flight = in_flight
        self.queue_rows = queue_rows
        self.running = 0
        self.waiting_rows = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def try_enter(self) -> bool:
        """Take a place if one is free; never waits."""
        if self.running >= self.in_flight:
            return False
        self._take()
        return True

    def queue(self, rows: int) -> None:
        """Count rows that wait from now on. Raises Overloaded when there is no room for them."""
        if self.waiting_rows + rows > self.queue_rows:
            raise Overloaded(f"{self.running} calls are under way and {self.waiting_rows} rows wait for the model")
        self.waiting_rows += rows

    def unqueue(self, rows: int) -> None:
        """Count rows no longer that `queue` counted."""
        self.waiting_rows -= rows

    async def enter(self, rows: int, deadline: Deadline) -> None:
        """Wait for a place. Raises Overloaded when the queue is full, DeadlineExceeded when the wait is too long.

        A caller that is cancelled while it waits leaves no trace.
        """
        if self.try_enter():
            return
        self.queue(rows)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (place, rows)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(deadline.left_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # the place came in the same turn as the end of the wait
            else:
                self._forget(entry)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("the deadline passed while the request waited for the model") from None
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._let_in()
        if not self.running:
            self.idle.set()

    def rebound(self, in_flight: int, queue_rows: int) -> None:
        """Take new bounds; who waits and now fits is let in, who was let in stays."""
        self.in_flight = in_flight
        self.queue_rows = queue_rows
        self._let_in()

    def _take(self) -> None:
        self.running += 1
        self.idle.clear()

    def _let_in(self) -> None:
        while self._waiting and self.running < self.in_flight:
            place, rows = self._waiting.popleft()
            self.unqueue(rows)
            if not place.done():  # else its caller was cancelled and has not run since
                self._take()
                place.set_result(None)

    def _forget(self, entry: tuple[asyncio.Future[None], int]) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            self.unqueue(entry[1])
