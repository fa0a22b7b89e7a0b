"""The control plane at work: imports FOLDER, follows routes.yaml, hears gateways, loads and unloads on demand."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from turnout.control.config import ControlConfig
from turnout.control.metrics import ControlMetrics
from turnout.control.publish.blobs import BlobFolder
from turnout.control.publish.change import CHANGED, is_loaded, is_obeyed, load_failure
from turnout.control.publish.importer import Importer
from turnout.control.publish.publisher import Publisher
from turnout.control.publish.routes_file import DeclaredRoute, read_routes
from turnout.control.publish.state import (
    Compared,
    Declared,
    Dropped,
    Imported,
    Refusal,
    Reported,
    State,
    Times,
    Unloaded,
)
from turnout.control.publish.tree import STILL_WRITTEN
from turnout.control.publish.watch import Look, Watch
from turnout.control.registry.interface import NotRecorded, Registry
from turnout.core.clock import monotonic_s
from turnout.core.document import DocumentError
from turnout.core.errors import Conflict, Forbidden, InvalidInput, NotFound, NotReady
from turnout.core.ids import VersionRef
from turnout.core.report import GatewayReport
from turnout.core.snapshot import Route

ROUTES_FILE: Final = "routes.yaml"
_log: Final = logging.getLogger(__name__)


class ControlPlane:
    """One control plane over a registry and a blob folder. `run` works until it is cancelled."""

    def __init__(self, config: ControlConfig, registry: Registry, blobs: BlobFolder, metrics: ControlMetrics) -> None:
        self.blobs = blobs
        self.metrics = metrics
        self.publisher = Publisher(_first_state(config, registry), registry, metrics)
        self._config = config
        self._folder = Path(config.folder) if config.folder else None
        self._importer = (
            Importer(self._folder, blobs, registry, config.settle_s, config.quiet_s) if self._folder else None
        )

    async def run(self) -> None:
        """Import, publish, and keep following routes.yaml and the clock."""
        watch = Watch(self._folder / ROUTES_FILE, self._config.watch_s, self._config.settle_s) if self._folder else None
        if watch is not None:
            found, _ = await asyncio.gather(watch.next(), self._import_all())
            await self._take_file(found, first=True)
        self.publisher.begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.publisher.tick())
            if watch is not None:
                tasks.create_task(self._follow_file(watch))

    def leave(self) -> None:
        """Let go everything that waits."""
        if self._importer is not None:
            self._importer.leave()
        self.publisher.leave()

    def report(self, report: GatewayReport) -> None:
        """Hear a gateway."""
        known = self.publisher.state.gateways.get(report.gateway)
        if report.refused and report.refused != (known.report.refused if known else ""):
            _log.error("gateway %s does not follow: %s", report.gateway, report.refused)
        self.publisher.apply(Reported(report))

    async def load(self, model: str) -> None:
        """Read a model's folder again and wait until its newest version serves.

        Raises Forbidden, Conflict, NotFound, InvalidInput and NotReady.
        """
        importer = self._required_importer()
        if any(route.name == model for route in self._explicit()):
            raise Conflict(
                f"route '{model}' is managed by {ROUTES_FILE}; name the version there, and its folder is read again"
            )
        imported = await self._read(importer, {model}, load=True)
        self.publisher.apply(imported)
        problems = importer.problems_of(model)
        if problems:
            reasons = "; ".join(f"{key}: {reason}" for key, reason in sorted(problems.items()))
            raise NotReady(reasons) if STILL_WRITTEN in reasons else InvalidInput(reasons)
        if model not in imported.present:
            raise NotFound(f"Request for unknown model: '{model}' is not found")
        await self._serving(model)

    async def unload(self, model: str) -> None:
        """Drop a model's hold and implicit route, and wait until gateways have.

        Raises Forbidden, Conflict, NotFound and NotReady.
        """
        self._required_importer()
        for route in self._explicit():
            if route.name == model or any(VersionRef.parse(ref).model == model for ref in route.versions()):
                raise Conflict(f"model '{model}' is behind route '{route.name}', which {ROUTES_FILE} manages")
        if model not in self.publisher.state.present:
            raise NotFound(f"Request for unknown model: '{model}' is not found")
        self.publisher.apply(Unloaded(model))
        generation = self.publisher.state.generation
        if not await self.publisher.until(lambda: self._is_obeyed(generation), self._config.gateway_live_s):
            raise NotReady(f"model '{model}': gateways have not followed in time")

    async def _serving(self, model: str) -> None:
        publisher = self.publisher

        def is_over() -> bool:
            now_s = monotonic_s()
            return is_loaded(publisher.state, model, now_s) or load_failure(publisher.state, model, now_s) is not None

        over = await publisher.until(is_over, self._config.ready_within_s)
        if is_loaded(publisher.state, model, monotonic_s()):
            return
        failure = load_failure(publisher.state, model, monotonic_s())
        if over and failure:
            raise InvalidInput(failure)
        raise NotReady(f"model '{model}' is not ready after {self._config.ready_within_s:g} s")

    def _is_obeyed(self, generation: int) -> bool:
        now_s = monotonic_s()
        return not len(self.publisher.state.live(now_s)) or is_obeyed(self.publisher.state, generation, now_s)

    def _explicit(self) -> list[DeclaredRoute | Route]:
        state = self.publisher.state
        published = [route for route in state.before if route.explicit]
        return [*published, *(state.pending.routes if state.pending else ())]

    def _required_importer(self) -> Importer:
        if self._importer is None:
            raise Forbidden("no folder of models was given, so none can be loaded from it")
        return self._importer

    async def _import_all(self) -> None:
        if self._importer is None:
            return
        try:
            imported = await self._importer.read_all()
        except (OSError, NotRecorded) as error:
            _log.error("FOLDER cannot be imported: %s", error)
            return
        for name, reason in sorted(imported.problems.items()):
            _log.warning("%s: %s", name, reason)
        self.publisher.note(imported)

    async def _read(self, importer: Importer, models: set[str], *, load: bool) -> Imported:
        try:
            return await importer.read_models(models, load=load)
        except (OSError, NotRecorded) as error:
            raise NotReady(f"the folder of models cannot be read: {error}") from error

    async def _follow_file(self, watch: Watch) -> None:
        while True:
            await self._take_file(await watch.next(), first=False)

    async def _take_file(self, found: Look, *, first: bool) -> None:
        """Take the routes of a file that is not, or no longer, as it was."""
        if found.data is None or found.is_blank:
            self._report_absence(found, first=first)
            return
        try:
            routes = read_routes(found.data.decode(), ROUTES_FILE)
        except DocumentError as error:
            self._drop(Refusal(error.source, error.line, error.reason))
            return
        except UnicodeDecodeError:
            self._drop(Refusal(ROUTES_FILE, 1, "is not UTF-8"))
            return
        await self._bring(routes)
        if not first:
            await self._compare(routes)
        self.publisher.apply(Declared(routes, ROUTES_FILE))

    async def _bring(self, routes: tuple[DeclaredRoute, ...]) -> None:
        """Read the folders of versions that routes name and nobody knows yet."""
        known = self.publisher.state.versions
        unknown = {VersionRef.parse(ref).model for route in routes for ref in route.versions() if ref not in known}
        if unknown and self._importer is not None:
            try:
                self.publisher.note(await self._importer.read_models(unknown))
            except (OSError, NotRecorded) as error:
                _log.error("folders of %s cannot be read: %s", ", ".join(sorted(unknown)), error)

    async def _compare(self, routes: tuple[DeclaredRoute, ...]) -> None:
        """Say which named versions have other bytes in FOLDER now than were imported: the imported ones go on."""
        if self._importer is None:
            return
        named = {version for route in routes for version in route.versions()}
        try:
            changed = await self._importer.compare(named)
        except OSError as error:
            _log.error("named versions cannot be compared with their folders: %s", error)
            return
        for version in sorted(changed & named):
            _log.warning("%s: %s; the imported ones are served", version, CHANGED)
        self.publisher.note(Compared(changed))

    def _drop(self, refusal: Refusal) -> None:
        self.publisher.apply(Dropped(refusal))

    def _report_absence(self, found: Look, *, first: bool) -> None:
        if found.problem:
            self._drop(Refusal(ROUTES_FILE, 1, found.problem))
        elif found.is_blank:
            empty = Refusal(ROUTES_FILE, 1, "is empty; write `routes: {}` for no routes")
            if first:
                self._drop(empty)
            else:
                self.publisher.refused(empty)
        elif not first or any(route.explicit for route in self.publisher.state.before):
            self.publisher.refused(Refusal(ROUTES_FILE, 1, "is gone; write `routes: {}` for no routes"))


def _first_state(config: ControlConfig, registry: Registry) -> State:
    """Return the state at the start of the process, from the records of earlier ones."""
    last = registry.published()
    generation = last.generation if last else 0
    resumed = last is not None and last.routes_generation > 0 and not config.fresh
    return State(
        registry_id=registry.registry_id,
        times=Times(config.gateway_live_s, config.first_routes_s, config.ready_within_s),
        trusted=not config.untrusted,
        generation=generation,
        snapshot=last,
        starting=not resumed,
        before=registry.routes(),
        versions=dict(registry.versions()),
        since={str(entry.ref): generation for entry in last.versions} if last and resumed else {},
    )
