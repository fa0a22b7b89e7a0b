"""Owns the workers of all held versions that run in a process of their own: starts, counts, quarantines, stops."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from adapters.golden import runtime_declared, samples_for
from adapters.interface import LoadFailed, ModelSource
from adapters.worker.supervisor import SupervisorState, WorkerSupervisor
from gateway.observe.metrics import Metrics
from gateway.parent.fetch import VersionFiles
from gateway.parent.messages import WorkerGone
from gateway.parent.quarantine import LOSSES, WITHIN_S, Losses
from gateway.parent.quarantine import reason as quarantine_reason
from turnout.core import clock
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import VersionEntry

_log = logging.getLogger(__name__)

_STARTS_AT_ONCE: Final = 2
# A version that is no longer held may still get calls that were queued before: its worker stays this long, and then
# finishes what it has for the grace time at most.
_LINGER_S: Final = 5.0
_GRACE_S: Final = 30.0
# So long the gateway processes may take to say how many calls a lost worker took along.
_CALLS_TOLD_S: Final = 1.0


class _Loss(NamedTuple):
    """How a worker was lost, and when."""

    reason: str
    pause_s: float
    at_s: float


class _Worker:
    """One held version's supervisor and socket: how many of its restarts are counted, a loss that is not told yet.

    `quarantined` says why it is; empty when it is not.
    """

    def __init__(self, entry: VersionEntry, socket: Path, supervisor: WorkerSupervisor) -> None:
        self.entry = entry
        self.socket = socket
        self.supervisor = supervisor
        self.counted = 0
        self.loss: _Loss | None = None
        self.quarantined = ""


class Workers:
    """All workers of the machine.

    `on_gone` hears of a version whose worker will not come, and why; `on_released` that this is no longer so.
    """

    def __init__(
        self,
        files: VersionFiles,
        sockets: Path,
        scratch: Path,
        metrics: Metrics,
        on_gone: Callable[[WorkerGone], None],
        on_released: Callable[[str], None],
    ) -> None:
        self._files = files
        self._sockets = sockets
        self._scratch = scratch
        self._metrics = metrics
        self._on_gone = on_gone
        self._on_released = on_released
        self._starts = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._workers: dict[str, _Worker] = {}
        self._losses = Losses()
        self._lost: set[tuple[int, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[WorkerSupervisor] = set()
        self._numbers = itertools.count()

    async def hold(self, entries: Collection[VersionEntry]) -> dict[str, str]:
        """Start the workers that these versions need and do not have; return the socket of each."""
        sockets: dict[str, str] = {}
        for entry in entries:
            if entry.runtime.uses_worker:
                version = str(entry.ref)
                known = self._workers.get(version)
                try:
                    if known is None or known.entry.digest != entry.digest:
                        self._drop(version)
                        known = await self._start(version, entry)
                except LoadFailed:
                    continue  # it has been told
                sockets[version] = str(known.socket)
        return sockets

    def quarantined(self, model: str) -> dict[str, str]:
        """Return, by version, why the workers of a model are not started any more."""
        return {
            version: worker.quarantined
            for version, worker in self._workers.items()
            if worker.quarantined and worker.entry.model == model
        }

    def pids(self) -> dict[str, int]:
        """Return the process id of each worker that runs, by version."""
        running = {version: worker.supervisor.pid for version, worker in self._workers.items()}
        return {version: pid for version, pid in running.items() if pid is not None}

    async def pardon(self, version: str) -> str:
        """Start a worker for a quarantined version once more; return its socket. Raises LoadFailed.

        Nothing is held against it: three more losses take it out again.
        """
        entry = self._workers[version].entry
        self._drop(version)
        return str((await self._start(version, entry)).socket)

    def release(self, held: Collection[VersionEntry]) -> None:
        """Stop the workers of versions that are no longer held."""
        kept = {str(entry.ref) for entry in held}
        for version in self._workers.keys() - kept:
            self._drop(version)

    def watch(self, reports: Mapping[int, Mapping[str, VersionReport]]) -> None:
        """Count restarts, and quarantine what was in flight at too many losses; `reports` are by process id."""
        for key, worker in self._workers.items():
            missing = worker.supervisor.restarts - worker.counted
            if missing:
                self._metrics.worker_restarts(worker.entry.ref).add(missing)
                worker.counted += missing
            self._tell_loss(worker, [versions[key] for versions in reports.values() if key in versions])
        lost = {
            (process, version)
            for process, versions in reports.items()
            for version, report in versions.items()
            if report.state is VersionState.LOST and report.crashed_calls and version in self._workers
        }
        for _, version in sorted(lost - self._lost):
            if self._losses.count(version, clock.monotonic_s()):
                self._quarantine(version)
        self._lost = lost

    async def stop(self, grace_s: float) -> None:
        """Stop all workers, giving each `grace_s`."""
        for task in self._tasks:
            task.cancel()
        supervisors = [worker.supervisor for worker in self._workers.values()]
        await asyncio.gather(*(supervisor.stop(grace_s) for supervisor in (*supervisors, *self._leaving)))

    def _drop(self, version: str) -> None:
        worker = self._workers.pop(version, None)
        if worker is not None:
            self._losses.forget(version)
            self._on_released(version)
            self._leaving.add(worker.supervisor)
            self._background(self._stop_later(worker.supervisor))

    async def _stop_later(self, supervisor: WorkerSupervisor) -> None:
        await asyncio.sleep(_LINGER_S)
        await supervisor.stop(_GRACE_S)
        self._leaving.discard(supervisor)

    async def _start(self, version: str, entry: VersionEntry) -> _Worker:
        # Short names: a socket's path has little room. One that is stopping keeps its own until it is gone.
        socket = self._sockets / f"{next(self._numbers)}.sock"
        try:
            source = await asyncio.to_thread(self._source, version, entry, socket)
        except LoadFailed as error:
            self._on_gone(WorkerGone(version, str(error)))
            raise
        supervisor = WorkerSupervisor(
            source,
            str(entry.runtime),
            starts=self._starts,
            on_state=lambda state, reason: self._hear(version, supervisor, state, reason),
        )
        self._background(supervisor.start())
        worker = self._workers[version] = _Worker(entry, socket, supervisor)
        return worker

    def _source(self, version: str, entry: VersionEntry, socket: Path) -> ModelSource:
        directory = self._files.directory(entry)
        return ModelSource(
            name=version,
            directory=directory,
            artifact=directory / entry.artifact,
            declared=runtime_declared(entry),
            options=entry.options,
            trusted=entry.trusted,
            scratch=self._scratch,
            samples=samples_for(entry, directory),
            socket=socket,
        )

    def _tell_loss(self, worker: _Worker, reports: Collection[VersionReport]) -> None:
        """Say in one line that a worker was lost, once the gateway processes have told what that cost."""
        loss = worker.loss
        heard = all(report.state is not VersionState.READY for report in reports)
        if loss is None or not (heard or clock.monotonic_s() - loss.at_s >= _CALLS_TOLD_S):
            return
        worker.loss = None
        calls = sum(report.crashed_calls for report in reports if report.state is VersionState.LOST)
        _log.warning(
            "worker of %s died: %s; %d calls lost; restarting in %g s",
            worker.entry.ref,
            loss.reason,
            calls,
            loss.pause_s,
        )

    def _hear(self, version: str, supervisor: WorkerSupervisor, state: SupervisorState, reason: str) -> None:
        _log.info("worker of %s: %s %s", version, state, reason)
        worker = self._workers.get(version)
        if state is SupervisorState.LOST and worker is not None and worker.supervisor is supervisor:
            worker.loss = _Loss(reason, supervisor.pause_s, clock.monotonic_s())
        if state is SupervisorState.FAILED:
            self._on_gone(WorkerGone(version, reason))

    def _quarantine(self, version: str) -> None:
        reason = quarantine_reason(f"its worker was lost {LOSSES} times within {WITHIN_S:.0f} s with calls in flight")
        _log.error("%s: %s", version, reason)
        worker = self._workers[version]
        worker.quarantined = reason
        worker.supervisor.quarantine(reason)
        self._on_gone(WorkerGone(version, reason, quarantined=True))

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
