"""What waits or runs in a process, against the bounds of all its versions and both its doors together.

Counts only. Doors look here before they read a body: while nothing is pressed, that look is all it costs.
"""

import asyncio
import math
from typing import Final

from gateway.limits import Limits
from turnout.core.clock import monotonic_s
from turnout.core.errors import Overloaded

# So long a body that is being received waits for room. Should all room be taken by such bodies, the first to give up
# makes room for the others.
PAUSE_S: Final = 2.0
_LATELY_S: Final = 1.0


class Pressure:
    """One for a process. `presses` tells whether a request may have to be shed.

    `crowded` is how many versions have no free place.

    `requests` and `rows` are of requests that are not answered within their turn; `held_bytes` are bodies and
    messages of those, of those still being received, and answers that nobody has taken yet.
    """

    def __init__(self, limits: Limits) -> None:
        self.crowded = 0
        self.requests = 0
        self.rows = 0
        self.held_bytes = 0
        self.presses = False
        self._limits = limits
        self._shed_s = -math.inf
        self._paused: set[asyncio.Future[None]] = set()

    def crowd(self, by: int) -> None:
        """Count versions that have no free place any more, or have one again."""
        self.crowded += by
        self.look()

    def look(self) -> None:
        """See whether a request may have to be shed."""
        limits = self._limits
        self.presses = (
            self.crowded > 0
            or self.requests >= limits.held_requests
            or self.rows >= limits.held_rows
            or self.held_bytes >= limits.held_bytes
        )

    @property
    def sheds(self) -> bool:
        """Whether callers were shed just now: work that no caller waits for is not to be begun."""
        return monotonic_s() - self._shed_s < _LATELY_S

    def note_shed(self) -> None:
        """Note that a caller is shed."""
        self._shed_s = monotonic_s()

    @property
    def is_full(self) -> bool:
        """Whether the process holds as many requests or rows as it may."""
        return self.requests >= self._limits.held_requests or self.rows >= self._limits.held_rows

    def check(self) -> None:
        """Raise Overloaded while the process holds as many requests or rows as it may."""
        limits = self._limits
        if self.requests >= limits.held_requests:
            self.note_shed()
            raise Overloaded(f"{self.requests} requests wait or run in this process already")
        if self.rows >= limits.held_rows:
            self.note_shed()
            raise Overloaded(f"{self.rows} rows wait or run in this process already")

    def check_bytes(self, size: int = 1) -> None:
        """Raise Overloaded if there is no room for so many bytes more."""
        if self.held_bytes + size > self._limits.held_bytes:
            self.note_shed()
            raise Overloaded(f"{self.held_bytes} bytes of requests are held already")

    def enter(self, rows: int) -> None:
        """Count a request that has to wait. Raises Overloaded, and counts nothing, when there are too many."""
        self.check()
        self.requests += 1
        self.rows += rows
        self.look()

    def leave(self, rows: int) -> None:
        """Count it no more."""
        self.requests -= 1
        self.rows -= rows
        self.look()

    def hold(self, size: int) -> None:
        """Count bytes that are here, whether there was room for them or not; negative: no more.

        Who waits to read on is told once there is room.
        """
        self.held_bytes += size
        self.look()
        if self._paused and self.held_bytes < self._limits.held_bytes:
            paused, self._paused = self._paused, set()
            for reader in paused:
                reader.set_result(None)

    async def room(self) -> None:
        """Return once something more may be read. Raises Overloaded when that takes too long."""
        if self.held_bytes < self._limits.held_bytes:
            return
        try:
            async with asyncio.timeout(PAUSE_S):
                while self.held_bytes >= self._limits.held_bytes:
                    reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._paused.add(reader)
                    try:
                        await reader
                    finally:
                        self._paused.discard(reader)
        except TimeoutError:
            self.check_bytes()


class Holding:
    """The bytes that one request holds, from the first that is received until its answer is there."""

    __slots__ = ("_pressure", "size")

    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure
        self.size = 0

    def add(self, size: int) -> None:
        """Hold bytes more: they are here."""
        self._pressure.hold(size)
        self.size += size

    async def receive(self, size: int) -> None:
        """Hold bytes more, and return once others may come. Raises Overloaded when that takes too long."""
        self.add(size)
        await self._pressure.room()

    def release(self) -> None:
        """Hold nothing any more."""
        size, self.size = self.size, 0
        self._pressure.hold(-size)
