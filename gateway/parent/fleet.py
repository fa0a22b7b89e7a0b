"""Keeps the gateway processes alive and leads them, all together, from one snapshot to the next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeAlias

from gateway.parent import child, heartbeats
from gateway.parent.asking import Asking, cannot, is_of, refusal
from gateway.parent.backoff import Backoff
from gateway.parent.deaths import Deaths
from gateway.parent.decision import START_PATIENCE_S, Step, decide, merge, tried
from gateway.parent.failure import CannotStart
from gateway.parent.messages import (
    CannotObey,
    Commit,
    Drain,
    FromProcess,
    Leaves,
    Listening,
    Loads,
    MachineReady,
    Report,
    RepositoryCall,
    SaysReady,
    WorkerGone,
)
from gateway.parent.process import GatewayProcess
from gateway.parent.publication import Publication
from gateway.parent.quarantine import Suspects
from gateway.parent.relief import EXIT_GRACE_S, Relief
from gateway.parent.slots import Slots
from turnout.core import clock
from turnout.core.report import VersionReport

_log = logging.getLogger(__name__)

_DEATHS_AT_START: Final = 3
# A new process that still cannot prepare a snapshot when it is asked again is replaced.
_ASKED_AT_MOST: Final = 3

Heard: TypeAlias = Callable[[GatewayProcess, FromProcess], None]


class Fleet:
    """`count` gateway processes. `on_change` hears of every report and death, `on_call` of repository calls.

    `start` makes a process for a slot; it is told whether that replaces one that served. `ran` tells of a process id
    that is gone which versions' calls were under way in it.
    """

    def __init__(
        self,
        count: int,
        slots: Slots,
        start: Callable[[int, bool, Heard], Awaitable[GatewayProcess]],
        on_change: Callable[[], None],
        on_call: Callable[[GatewayProcess, RepositoryCall], None],
        drain_seconds: float,
        ran: Callable[[int], list[str]] = lambda _pid: [],
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
        self._gone: dict[str, WorkerGone] = {}
        self._suspects = Suspects()
        self._judged = Deaths(self._suspects, ran)
        self._loading: dict[int, dict[str, str]] = {}
        self._asking = Asking(
            lambda publication: publication.told(self._suspects),
            lambda publication: publication is self.wanted or publication is self.serving,
        )
        self._relief = Relief(self._begin, self._bury, drain_seconds)
        self._ready = False
        self._leaving = False
        self._heard_any = False
        self._deaths = 0
        self._first_offer_s: float | None = None

    async def keep(self) -> None:
        """Keep all processes alive, until cancelled. Raises CannotStart when they end before they ever began."""
        async with asyncio.TaskGroup() as tasks:
            # Who closes down beats no more; whoever takes too long for it is killed then.
            tasks.create_task(heartbeats.watch(lambda: [] if self._leaving else self.processes))
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
                process.send(publication.told(self._suspects))
        self._on_change()

    def pardon(self, model: str, asked_by: GatewayProcess) -> bool:
        """Have quarantined versions of a model loaded once more, by one process first; tell whether there are any.

        That process is not the one that was asked for it, if there is another: it could not answer any more.
        """
        if not self._suspects.pardon(model):
            return False
        publication = self.wanted or self.serving
        serving = [process for process in self.processes if process.in_service]
        if publication is not None and serving:
            tries = min(serving, key=lambda process: process is asked_by)
            tries.send(publication.told(self._suspects))
        elif publication is not None:
            self.offer(publication)
        return True

    def reconnect(self, version: str, socket: str) -> None:
        """Have all processes load a version anew that has another worker now, on this socket."""
        self.serving = self.serving and self.serving.reconnected(version, socket)
        self.wanted = self.wanted and self.wanted.reconnected(version, socket)
        publication = self.wanted or self.serving
        for process in self.processes:
            if publication is not None and (process.in_service or self.serving is None):
                process.send(publication.told(self._suspects))

    def quarantined(self, model: str) -> dict[str, str]:
        """Return, by version, why those of a model are not loaded any more."""
        publication = self.wanted or self.serving
        refused = self._suspects.refused(publication.digests) if publication is not None else {}
        return {version: reason for version, reason in refused.items() if version.rpartition("@")[0] == model}

    def advance(self) -> Publication | None:
        """Swap all processes to the wanted snapshot if it may be served; return it if it was."""
        self._lead_replacements()
        wanted = self.wanted
        if wanted is None:
            return None
        leading = self._reporting()
        self.refused = self._why_not(wanted)
        everyone = self.serving is not None or len(leading) >= self._count
        patience_over = self.patience_over and not self._ready
        if (not everyone and not patience_over) or any(cannot(process, wanted) for process in leading):
            return None
        serving = self.serving.snapshot if self.serving else None
        reports = [process.report for process in leading if process.report is not None]
        step, reason = decide(wanted.snapshot, serving, reports, patience_over=patience_over)
        self.refused = reason or self.refused
        if step is not Step.COMMIT:
            return None
        self.serving, self.wanted = wanted, None
        self._suspects.keep(wanted.digests)
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

    def tell_gone(self, gone: WorkerGone) -> None:
        """Tell every process, also later ones, that a version's worker will not come."""
        self._gone[gone.version] = gone
        for process in self.processes:
            process.send(gone)

    def forget_gone(self, version: str) -> None:
        """Take back `tell_gone` for later processes: the version is no longer held."""
        self._gone.pop(version, None)

    async def restart(self) -> str:
        """Replace all processes that serve, one after the other; return why it was given up, empty when it is done."""
        serving = [process for process in self.processes if process.in_service and not process.leaves]
        for process in serving:
            reason = await self._relief.of(process)
            if reason:
                return reason
        return "" if serving else "no gateway process serves yet"

    async def drain(self, seconds: float) -> None:
        """Let every process finish within `seconds`, then end those that have not."""
        self._leaving = True
        for process in self.processes:
            process.send(Drain(seconds))
        waiting = [asyncio.create_task(process.wait()) for process in self.processes]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds + EXIT_GRACE_S)
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
        process.refusals = 0
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
            told = serving.told(self._suspects)
            if process.prepared is not told and process.prepared != told:
                process.send(told)
            elif process.report is not None and self._is_warm(process, process.report, serving):
                if unfit := self._relief.unfit(process):
                    process.kill(unfit)
                    continue
                self._commit(process, serving)
                if self.wanted is not None:
                    process.send(self.wanted.told(self._suspects))

    def _why_not(self, wanted: Publication) -> str:
        """Say why some process cannot prepare the wanted snapshot; empty when none says so."""
        refusals = (
            refusal(process, process.cannot)
            for process in self.processes
            if process.cannot is not None and cannot(process, wanted)
        )
        return next(refusals, "")

    def _is_warm(self, process: GatewayProcess, report: Report, serving: Publication) -> bool:
        if tried(serving.snapshot, report):
            return True
        # Nobody waits for one that is to take over from a process that still serves.
        return clock.monotonic_s() - process.started_s >= START_PATIENCE_S and not self._relief.is_due(process)

    async def _keep_one(self) -> None:
        backoff = Backoff()
        while not self._leaving:
            try:
                process = await self._begin()
            except OSError as error:
                _log.error("no gateway process can be started: %s", error)
                self._count_death(child.cannot_run(error))
                await asyncio.sleep(backoff.after(0.0))
                continue
            last = await self._keep(process)
            if not last.leaves and not self._leaving:
                await asyncio.sleep(backoff.after(clock.monotonic_s() - last.started_s))

    async def _begin(self) -> GatewayProcess:
        """Start a process. Raises OSError."""
        slot = self._slots.take()
        try:
            process = await self._start(slot, self.serving is not None, self._hear)
        except OSError:
            self._slots.give_back(slot)
            raise
        self.processes.append(process)
        self._greet(process)
        return process

    async def _keep(self, process: GatewayProcess) -> GatewayProcess:
        """See a process, and whoever takes over from it, to the end; return the last of them."""
        while True:
            self._bury(process, await process.wait())
            successor = self._relief.inherit(process)
            if successor is None:
                return process
            process = successor

    def _greet(self, process: GatewayProcess) -> None:
        publication = self.serving or self.wanted
        if publication is not None:
            process.send(publication.told(self._suspects))
        for gone in self._gone.values():
            process.send(gone)

    def _bury(self, process: GatewayProcess, status: int) -> None:
        """Take note of the end of a process. Raises CannotStart when they end before they ever began."""
        self.processes.remove(process)
        self._slots.give_back(process.slot)
        loading = self._loading.pop(process.pid, {})
        self._asking.forget(process)
        if self._leaving:
            return
        publication = self.wanted or self.serving
        digests = publication.digests if publication is not None else {}
        conclusions = self._judged.judge(
            process.pid, 0 if process.leaves else status, loading, digests, hung=process.hung
        )
        if process.leaves:
            _log.info("gateway process %d (slot %d) has left with status %d", process.pid, process.slot, status)
            self._on_change()
            return
        while_loading = f" while it loaded {', '.join(sorted(loading))}" if loading else ""
        _log.error(
            "gateway process %d (slot %d) ended with status %d%s", process.pid, process.slot, status, while_loading
        )
        self._take_out(conclusions)
        self._count_death(f"gateway processes end as soon as they start (status {status})")
        self._on_change()

    def _count_death(self, why: str) -> None:
        """Count one. Raises CannotStart when they end before they ever began."""
        self._deaths += 1
        if not self._heard_any and self._deaths >= _DEATHS_AT_START:
            raise CannotStart(why)

    def _take_out(self, quarantined: dict[str, str]) -> None:
        """Have the processes that serve on do without these versions."""
        publication = self.wanted or self.serving
        if publication is None or not quarantined:
            return
        for process in self.processes:
            process.send(publication.told(self._suspects))
            for version, reason in quarantined.items():
                process.send(WorkerGone(version, reason, quarantined=True))

    def _survived(self, versions: Collection[str]) -> None:
        """Forget the suspicion of versions that a process has loaded; those who were told not to may load them now."""
        self._suspects.survived(versions)
        publication = self.wanted or self.serving
        told = [process.prepared for process in self.processes if process.in_service and process.prepared]
        now_here = publication.prepare.directories.keys() & versions if publication is not None else ()
        if publication is not None and any(prepare.problems.keys() & now_here for prepare in told):
            self.offer(publication)

    def _hear(self, process: GatewayProcess, message: FromProcess) -> None:
        self._heard_any = True
        if isinstance(message, RepositoryCall):
            self._on_call(process, message)
        elif isinstance(message, Loads):
            over = self._loading.get(process.pid, {}).keys() - message.versions.keys()
            self._loading[process.pid] = message.versions
            self._survived(over)
        elif isinstance(message, CannotObey):
            self._hear_refusal(process, message)
        elif isinstance(message, Leaves):
            self._relief.let_go(process)
        elif isinstance(message, Report | Listening | SaysReady):
            self._on_change()

    def _hear_refusal(self, process: GatewayProcess, message: CannotObey) -> None:
        publication = next((one for one in (self.wanted, self.serving) if is_of(one, message.generation)), None)
        if publication is None or process in self._asking:
            return  # it has been overtaken, or it is being asked again
        if publication is not self.wanted and process.in_service:
            self.refused = refusal(process, message)
        elif process.refusals > _ASKED_AT_MOST and not process.in_service:
            process.kill(f"cannot prepare generation {message.generation}: {message.reason}")
        else:
            self._asking.ask(process, publication)
        self._on_change()
