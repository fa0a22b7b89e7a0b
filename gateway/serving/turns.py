"""Turns at loading: so many loads at once in a process, and nothing beside one that is suspected."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """`count` turns at once. Who waits is served in order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._alone = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Have one turn."""
        async with self._free:
            yield

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Have all turns."""
        # Under a lock: two that gather turns at the same time would wait for each other for ever.
        async with self._alone, contextlib.AsyncExitStack() as turns:
            for _ in range(self._count):
                await turns.enter_async_context(self._free)
            yield
