"""Leads the whole machine: takes snapshots, has bytes, workers and processes prepare them, and tells how far it is."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from adapters.interface import LoadFailed
from gateway.observe.exposition import render
from gateway.parent import last_good
from gateway.parent.control_client import Offer
from gateway.parent.decision import Readiness, readiness
from gateway.parent.fetch import FetchFailed, VersionFiles
from gateway.parent.fleet import Fleet
from gateway.parent.messages import Prepare
from gateway.parent.process import GatewayProcess
from gateway.parent.publication import Publication
from gateway.parent.state_folder import StateFolder
from gateway.parent.workers import Workers
from turnout.core.clock import Deadline
from turnout.core.report import GatewayReport, VersionReport, VersionState
from turnout.core.snapshot import Snapshot

_log = logging.getLogger(__name__)

_DRAINING: Final = "draining"
_KEEP_AGAIN_S: Final = 10.0
_KEPT_WITHIN_S: Final = 5.0
# So long, and so far apart, it is looked what became of a retried load: a caller waits for 300 s at most.
_RETRIED_WITHIN_S: Final = 290.0
_LOOK_S: Final = 0.1


class Machine:
    """What the parent knows and decides. `on_start` hears once that the machine is ready, or for now will not be."""

    def __init__(
        self,
        name: str,
        state: StateFolder,
        files: VersionFiles,
        workers: Workers,
        fleet: Fleet,
        *,
        allow_empty: bool,
        on_start: Callable[[Readiness], None],
    ) -> None:
        self.name = name
        self._refused = ""
        self._hindered = ""
        self._state = state
        self._files = files
        self._workers = workers
        self._fleet = fleet
        self._allow_empty = allow_empty
        self._on_start = on_start
        self._ready = False
        self._told = False
        self._announced = False
        self._draining = False
        self._taking = asyncio.Lock()
        self._untidy = asyncio.Event()
        self._kept: Publication | None = None
        self._is_safe = True
        self._keep_by = Deadline.after(_KEPT_WITHIN_S)
        self._taken: Snapshot | None = None

    async def take(self, offer: Offer) -> bool:
        """Bring everything that a snapshot holds to this machine and have the processes prepare it.

        Return whether all its bytes are here. The same snapshot again is work only if some were missing.
        """
        async with self._taking:
            newest = self._fleet.wanted or self._fleet.serving
            if newest is not None and newest.data == offer.data and not newest.prepare.problems:
                return True
            self._taken = offer.snapshot
            try:
                publication = await self._prepare(offer)
                if (
                    newest is None
                    or newest.data != offer.data
                    or newest.prepare.problems != publication.prepare.problems
                ):
                    self._fleet.offer(publication)
            finally:
                self._taken = None
                self._untidy.set()
            return not publication.prepare.problems

    def update(self) -> None:
        """Look again at what processes and workers report, and act on it."""
        if self._fleet.advance() is not None:
            self._workers.release([entry for snapshot in self._snapshots() for entry in snapshot.versions])
            self._keep_by = Deadline.after(_KEPT_WITHIN_S)
            self._untidy.set()
        self._workers.watch(self._fleet.reports())
        # Who hears that the machine is ready may count on the last good snapshot; but a disk that hangs is no reason.
        if not self._announced and not self._draining and (self._kept is self._fleet.serving or self._keep_by.passed):
            self._announce()

    async def keep_tidy(self) -> None:
        """Keep what is served as the last good snapshot, and then remove what nothing needs; until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._untidy.wait(), None if self._is_safe else _KEEP_AGAIN_S)
            self._untidy.clear()
            await self.tidy()

    async def tidy(self) -> None:
        """Do so once. The bytes of a snapshot go only after a newer one has become the last good one."""
        serving = self._fleet.serving
        if serving is None:
            return
        if serving is not self._kept or not self._is_safe:
            self._is_safe = await self._keep(serving)
            self._kept = serving
        # What is being brought is not ours to judge; whoever brings it has us look again.
        if self._is_safe and not self._taking.locked():
            async with self._taking:
                await self._sweep()

    async def retry(self, model: str, asked_by: GatewayProcess) -> str:
        """Have what is quarantined of a model loaded once more, and wait for the outcome; return why it failed again.

        Empty when it is ready, when it takes longer than is waited for, and when there was nothing to retry.
        """
        retried = set(self._quarantined(model))
        if not retried:
            return ""
        try:
            await self._pardon(model, asked_by)
        except LoadFailed as error:
            return f"{model} cannot be served: {error}"
        end = Deadline.after(_RETRIED_WITHIN_S)
        while not end.passed:
            await asyncio.sleep(_LOOK_S)
            reports = {version: report for version, report in self.versions().items() if version in retried}
            failed = self._quarantined(model) or {
                version: report.reason
                for version, report in reports.items()
                if report.state is VersionState.FAILED and not report.quarantined
            }
            if failed:
                return "; ".join(f"{version} cannot be served: {reason}" for version, reason in failed.items())
            if {version for version, report in reports.items() if report.state is VersionState.READY} == retried:
                break
        return ""

    def _quarantined(self, model: str) -> dict[str, str]:
        return {**self._fleet.quarantined(model), **self._workers.quarantined(model)}

    async def _pardon(self, model: str, asked_by: GatewayProcess) -> None:
        self._fleet.pardon(model, asked_by)
        async with self._taking:  # a snapshot that is just being prepared would name the old sockets
            for version in self._workers.quarantined(model):
                self._fleet.reconnect(version, await self._workers.pardon(version))

    def _announce(self) -> None:
        """Say once that the machine is ready, when its doors say so too; and once that for now it will not be."""
        now = self.readiness()
        if self._ready or (not now.reason and self._fleet.doors_open):
            if not self._ready:
                self._ready = True
                self._fleet.tell_ready()
            if self._fleet.says_ready:
                self._announced = True
                self._on_start(now)
        elif now.reason and not now.waiting and not self._told:
            self._told = True
            self._on_start(now)

    def versions(self) -> dict[str, VersionReport]:
        """Return the machine's state of each version."""
        return self._fleet.versions()

    def refuse(self, reason: str) -> None:
        """Report that control's snapshot is not obeyed, and why; empty: it is again."""
        self._refused = reason

    def hinder(self, reason: str) -> None:
        """Report why the last good snapshot cannot be taken; empty: it can."""
        self._hindered = reason

    def readiness(self) -> Readiness:
        """Return how ready the machine is, whether or not it has been ready before."""
        return readiness(
            self.serving,
            self.versions(),
            patience_over=self._fleet.patience_over,
            allow_empty=self._allow_empty,
            refused=self._not_obeyed,
        )

    def leave(self) -> None:
        """Be not ready from now on."""
        self._draining = True

    @property
    def not_ready(self) -> str:
        """Why the machine is not ready; empty when it is. Being ready latches (DESIGN 6)."""
        if self._draining:
            return _DRAINING
        if not self._fleet.listening:
            return "no gateway process takes requests"
        return "" if self._ready else self.readiness().reason

    @property
    def serving(self) -> Snapshot | None:
        """The snapshot that is served."""
        return self._fleet.serving.snapshot if self._fleet.serving else None

    def report(self) -> GatewayReport:
        """Return this machine's report to control."""
        serving = self.serving
        followed = self._fleet.serving or self._fleet.wanted
        return GatewayReport(
            gateway=self.name,
            registry_id=followed.snapshot.registry_id if followed else "",
            generation=serving.generation if serving else 0,
            held=self._fleet.held,
            versions=self._fleet.versions(),
            refused=self._not_obeyed,
        )

    def exposition(self) -> bytes:
        """Return the metrics of all processes and of the parent."""
        serving = self.serving
        live = frozenset(str(entry.ref) for entry in serving.versions) if serving else frozenset()
        routes = frozenset(route.name for route in serving.routes) if serving else frozenset()
        return render(self._state.metrics, live, routes)

    def snapshot_state(self) -> Mapping[str, object]:
        """Return which snapshot is served and held, as JSON-ready values."""
        report = self.report()
        return {
            "gateway": report.gateway,
            "registry_id": report.registry_id,
            "generation": report.generation,
            "routes_generation": self.serving.routes_generation if self.serving else 0,
            "held": report.held,
            "refused": report.refused,
            "versions": {name: version.state for name, version in report.versions.items()},
            "processes": [
                {"pid": process.pid, "slot": process.slot, "listening": process.listening}
                for process in self._fleet.processes
            ],
            "workers": self._workers.pids(),
        }

    @property
    def _not_obeyed(self) -> str:
        return self._refused or self._hindered or self._fleet.refused

    async def _prepare(self, offer: Offer) -> Publication:
        snapshot = offer.snapshot
        directories: dict[str, str] = {}
        problems: dict[str, str] = {}
        for entry in snapshot.versions:
            try:
                directories[str(entry.ref)] = str(await self._files.fetch(entry, offer.blobs))
            except FetchFailed as error:
                _log.error("%s: %s", entry.ref, error)
                problems[str(entry.ref)] = str(error)
        fetched = [entry for entry in snapshot.versions if str(entry.ref) in directories]
        sockets = await self._workers.hold(fetched)
        prepare = Prepare(snapshot.generation, str(self._path(snapshot)), directories, sockets, problems)
        publication = Publication(snapshot, offer.data, prepare)
        await asyncio.to_thread(publication.store)
        return publication

    async def _keep(self, serving: Publication) -> bool:
        try:
            await asyncio.to_thread(last_good.write, self._state.last_good, serving.data)
        except OSError as error:
            # It is served all the same; only a restart without control would start from an older one.
            _log.error("generation %d cannot be kept as the last good one: %s", serving.snapshot.generation, error)
            return False
        return True

    async def _sweep(self) -> None:
        snapshots = self._snapshots()
        held = [entry for snapshot in snapshots for entry in snapshot.versions]
        try:
            await asyncio.to_thread(self._files.sweep, held)
            await asyncio.to_thread(self._remove_snapshots_but, {self._path(snapshot) for snapshot in snapshots})
        except OSError as error:
            _log.error("files that nothing needs cannot be removed: %s", error)

    def _remove_snapshots_but(self, kept: set[Path]) -> None:
        for path in self._state.snapshots.glob("[!.]*"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _snapshots(self) -> list[Snapshot]:
        """Return the snapshots whose files and workers stay, one that is just being brought here among them."""
        known = (self._fleet.serving, self._fleet.wanted)
        snapshots = [publication.snapshot for publication in known if publication is not None]
        return snapshots if self._taken is None else [*snapshots, self._taken]

    def _path(self, snapshot: Snapshot) -> Path:
        return self._state.snapshots / f"{snapshot.generation}.json"
