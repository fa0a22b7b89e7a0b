"""Replaces a gateway process that serves, without losing a call: the next one serves before the old one leaves.

It decides for one process at a time; who is to be replaced, and when, is the fleet's word.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.parent.decision import lost_versions
from gateway.parent.messages import Drain
from gateway.parent.process import GatewayProcess

_log = logging.getLogger(__name__)

# So long the next process may take to load and to open its doors.
_WARM_WITHIN_S: Final = 600.0
EXIT_GRACE_S: Final = 1.0


class Relief:
    """Reliefs of one fleet. `begin` starts a process (raises OSError), `bury` takes note of an end and its status."""

    def __init__(
        self,
        begin: Callable[[], Awaitable[GatewayProcess]],
        bury: Callable[[GatewayProcess, int], None],
        drain_seconds: float,
    ) -> None:
        self._begin = begin
        self._bury = bury
        self._drain_seconds = drain_seconds
        self._successors: dict[GatewayProcess, GatewayProcess] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def inherit(self, process: GatewayProcess) -> GatewayProcess | None:
        """Return who takes the place of a process that has ended; whoever asks keeps it from now on."""
        return self._successors.pop(process, None)

    def is_due(self, process: GatewayProcess) -> bool:
        """Tell whether somebody still serves in whose place this process is to come."""
        return process in self._successors.values()

    def unfit(self, process: GatewayProcess) -> str:
        """Say why a successor that has tried all versions cannot take over; empty when it can."""
        served = next((old for old, new in self._successors.items() if new is process), None)
        if served is None or served.report is None or process.report is None:
            return ""
        return lost_versions(served.report, process.report)

    def let_go(self, process: GatewayProcess) -> None:
        """Let a process leave that an operator has signalled: one that serves, once another does in its place."""
        task = asyncio.create_task(self._let_go(process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def of(self, process: GatewayProcess) -> str:
        """Have another process take over and this one leave; return why that failed, empty when it is done."""
        async with self._turn:
            if process.ended:
                return ""
            try:
                successor = await self._begin()
            except OSError as error:
                return f"no gateway process can be started: {error}"
            self._successors[process] = successor
            await _first(successor.opened.wait(), successor.wait(), process.wait(), within_s=_WARM_WITHIN_S)
            if not successor.listening:
                return await self._given_up(process, successor)
            process.send(Drain(self._drain_seconds, relieved=True))
            await self._see_end(process)
            return ""

    async def _let_go(self, process: GatewayProcess) -> None:
        if process.listening and (reason := await self.of(process)):
            _log.error("gateway process %d leaves all the same: %s", process.pid, reason)
            process.send(Drain(self._drain_seconds))
        await self._see_end(process)

    async def _see_end(self, process: GatewayProcess) -> None:
        """Wait for the end of a process that leaves; one that takes too long is killed."""
        await _first(process.wait(), within_s=self._drain_seconds + EXIT_GRACE_S)
        process.kill("did not end in time")

    async def _given_up(self, process: GatewayProcess, successor: GatewayProcess) -> str:
        if self._successors.get(process) is not successor:
            return f"gateway process {process.pid} ended before another one could take over"
        del self._successors[process]
        successor.kill(f"not ready within {_WARM_WITHIN_S:.0f} s")
        status = await successor.wait()
        self._bury(successor, status)
        why = successor.killed_for or f"it ended with status {status}"
        return f"the process that was to take over from gateway process {process.pid} cannot: {why}"


async def _first(*waits: Awaitable[object], within_s: float) -> None:
    """Wait for the first of these, at most so long."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
