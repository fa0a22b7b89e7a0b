"""Keeps the gateway processes alive and leads them, all together, from one snapshot to the next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from gateway.parent.backoff import Backoff
from gateway.parent.decision import START_PATIENCE_S, Step, decide, merge, tried
from gateway.parent.failure import CannotStart
from gateway.parent.messages import (
    HEARTBEAT_S,
    Commit,
    Drain,
    FromProcess,
    Listening,
    MachineReady,
    Prepare,
    Report,
    RepositoryCall,
    SaysReady,
    WorkerGone,
)
from gateway.parent.process import GatewayProcess
from gateway.parent.slots import Slots
from turnout.core import clock
from turnout.core.report import VersionReport
from turnout.core.snapshot import Snapshot

_log = logging.getLogger(__name__)

_DEATHS_AT_START: Final = 3
_EXIT_GRACE_S: Final = 1.0

Heard: TypeAlias = Callable[[GatewayProcess, FromProcess], None]


class Publication(msgspec.Struct, frozen=True):
    """A snapshot, its canonical bytes, and what the processes are told to prepare it."""

    snapshot: Snapshot
    data: bytes
    prepare: Prepare


class Fleet:
    """`count` gateway processes. `on_change` hears of every report and death, `on_call` of repository calls.

    `start` makes a process for a slot; it is told whether that replaces one that served.
    """

    def __init__(
        self,
        count: int,
        slots: Slots,
        start: Callable[[int, bool, Heard], Awaitable[GatewayProcess]],
        on_change: Callable[[], None],
        on_call: Callable[[GatewayProcess, RepositoryCall], None],
    ) -> None:
        self.processes: list[GatewayProcess] = []
        self.serving: Publication | None = None
        self.wanted: Publication | None = None
        self.refused = ""
        self._count = count
        self._slots = slots
        self._start = start
        self._on_change = on_change
        self._on_call = on_call
        self._gone: dict[str, str] = {}
        self._ready = False
        self._leaving = False
        self._heard_any = False
        self._deaths = 0
        self._first_offer_s: float | None = None

    async def keep(self) -> None:
        """Keep all processes alive, until cancelled. Raises CannotStart when they end before they ever began."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_heartbeats())
            for _ in range(self._count):
                tasks.create_task(self._keep_one())

    def offer(self, publication: Publication) -> None:
        """Have all processes prepare a snapshot; `advance` swaps to it once it may."""
        self.wanted = publication
        self.refused = ""
        if self._first_offer_s is None:
            self._first_offer_s = clock.monotonic_s()
        for process in self.processes:
            if process.in_service or self.serving is None:
                process.send(publication.prepare)
        self._on_change()

    def advance(self) -> Publication | None:
        """Swap all processes to the wanted snapshot if it may be served; return it if it was."""
        self._lead_replacements()
        wanted = self.wanted
        if wanted is None:
            return None
        leading = self._reporting()
        everyone = self.serving is not None or len(leading) >= self._count
        patience_over = self.patience_over and not self._ready
        if not everyone and not patience_over:
            return None
        serving = self.serving.snapshot if self.serving else None
        reports = [process.report for process in leading if process.report is not None]
        step, self.refused = decide(wanted.snapshot, serving, reports, patience_over=patience_over)
        if step is not Step.COMMIT:
            return None
        self.serving, self.wanted = wanted, None
        for process in leading:
            self._commit(process, wanted)
        self._lead_replacements()
        return wanted

    @property
    def patience_over(self) -> bool:
        """Whether it is so long since the first snapshot came that no further version is waited for."""
        return self._first_offer_s is not None and clock.monotonic_s() - self._first_offer_s >= START_PATIENCE_S

    @property
    def held(self) -> int:
        """The newest generation that all reporting processes have tried to load."""
        return min((process.report.held for process in self._reporting() if process.report), default=0)

    @property
    def listening(self) -> int:
        """How many processes take requests."""
        return sum(process.listening for process in self.processes)

    @property
    def says_ready(self) -> bool:
        """Whether all doors that are open say that the machine is ready."""
        return all(process.says_ready for process in self.processes if process.listening)

    @property
    def doors_open(self) -> bool:
        """Whether all processes take requests; at a start that takes too long, one is enough."""
        return self.listening >= (1 if self.patience_over else self._count)

    def versions(self) -> dict[str, VersionReport]:
        """Return the machine's state of each version."""
        return merge([process.report.versions for process in self._reporting() if process.report])

    def reports(self) -> dict[int, dict[str, VersionReport]]:
        """Return each process's own reports, by process id."""
        return {process.pid: process.report.versions for process in self.processes if process.report}

    def tell_ready(self) -> None:
        """Tell every process, also later ones, that the machine is ready."""
        self._ready = True
        for process in self.processes:
            if process.in_service:
                process.send(MachineReady())

    def tell_gone(self, version: str, reason: str) -> None:
        """Tell every process, also later ones, that a version's worker will not come."""
        self._gone[version] = reason
        for process in self.processes:
            process.send(WorkerGone(version, reason))

    def forget_gone(self, version: str) -> None:
        """Take back `tell_gone` for later processes: the version is no longer held."""
        self._gone.pop(version, None)

    async def drain(self, seconds: float) -> None:
        """Let every process finish within `seconds`, then end those that have not."""
        self._leaving = True
        for process in self.processes:
            process.send(Drain(seconds))
        waiting = [asyncio.create_task(process.wait()) for process in self.processes]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds + _EXIT_GRACE_S)
        self.kill("did not end in time")

    def kill(self, reason: str) -> None:
        """End every process at once."""
        self._leaving = True
        for process in self.processes:
            process.kill(reason)

    def _reporting(self) -> list[GatewayProcess]:
        """Return the processes that serve; before any does, those that have reported."""
        serving = [process for process in self.processes if process.in_service]
        if serving or self.serving is not None:
            return serving
        return [process for process in self.processes if process.report is not None]

    def _commit(self, process: GatewayProcess, publication: Publication) -> None:
        process.send(Commit(publication.snapshot.generation))
        if self._ready:
            process.send(MachineReady())

    def _lead_replacements(self) -> None:
        """Bring processes that started later to what is served, and then to what is wanted."""
        serving = self.serving
        if serving is None:
            return
        for process in self.processes:
            if process.in_service:
                continue
            if process.prepared is not serving.prepare:
                process.send(serving.prepare)
            elif process.report is not None and self._is_warm(process, process.report, serving):
                self._commit(process, serving)
                if self.wanted is not None:
                    process.send(self.wanted.prepare)

    def _is_warm(self, process: GatewayProcess, report: Report, serving: Publication) -> bool:
        waited_s = clock.monotonic_s() - process.started_s
        return tried(serving.snapshot, report) or waited_s >= START_PATIENCE_S

    async def _keep_one(self) -> None:
        backoff = Backoff()
        while not self._leaving:
            slot = self._slots.take()
            try:
                process = await self._start(slot, self.serving is not None, self._hear)
            except OSError as error:
                _log.error("no gateway process can be started: %s", error)
                self._slots.give_back(slot)
                await asyncio.sleep(backoff.after(0.0))
                continue
            self.processes.append(process)
            self._greet(process)
            status = await process.wait()
            self.processes.remove(process)
            self._slots.give_back(slot)
            await self._mourn(process, status, backoff)

    def _greet(self, process: GatewayProcess) -> None:
        publication = self.serving or self.wanted
        if publication is not None:
            process.send(publication.prepare)
        for version, reason in self._gone.items():
            process.send(WorkerGone(version, reason))

    async def _mourn(self, process: GatewayProcess, status: int, backoff: Backoff) -> None:
        if self._leaving:
            return
        _log.error("gateway process %d (slot %d) ended with status %d", process.pid, process.slot, status)
        self._deaths += 1
        if not self._heard_any and self._deaths >= _DEATHS_AT_START:
            raise CannotStart(f"gateway processes end as soon as they start (status {status})")
        self._on_change()
        await asyncio.sleep(backoff.after(clock.monotonic_s() - process.started_s))

    def _hear(self, process: GatewayProcess, message: FromProcess) -> None:
        self._heard_any = True
        if isinstance(message, RepositoryCall):
            self._on_call(process, message)
        elif isinstance(message, Report | Listening | SaysReady):
            self._on_change()

    async def _watch_heartbeats(self) -> None:
        while True:
            before_s = clock.monotonic_s()
            await asyncio.sleep(HEARTBEAT_S)
            late = clock.monotonic_s() - before_s > 2 * HEARTBEAT_S
            for process in self.processes:
                if late:
                    process.forgive_silence()
                process.check_heartbeat()
