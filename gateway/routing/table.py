"""A snapshot's routes, compiled: what a request needs is looked up, never computed. A table is never changed.

Thousands of routes take seconds to compile: it is done in slices, so that the doors' loop keeps turning.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import msgspec

from gateway.doors.interface import Shed
from gateway.observe.metrics import ArmMetrics, Metrics
from gateway.routing.constant import Constant
from gateway.routing.split import Split, is_match, sticky_key
from gateway.routing.target import Interface, Target, interface, own, whole
from gateway.serving.loading import Engine
from gateway.serving.pool import Pool
from gateway.serving.served_version import ServedVersion
from turnout.core.bucket import bucket
from turnout.core.clock import monotonic_s
from turnout.core.errors import InvalidInput, NotFound, NotReady, Overloaded
from turnout.core.ids import VersionRef
from turnout.core.request import CallerHeaders, PredictRequest
from turnout.core.signature import Signature
from turnout.core.snapshot import BUCKETS, Comparison, Fallback, Route, Snapshot

_LOG: Final = logging.getLogger(__name__)

CHAMPION: Final = "champion"
CANARY: Final = "canary"
MATCHED: Final = "matched"
PINNED: Final = "pinned"
NONE: Final = "none"
EVIDENCE: Final = frozenset({CHAMPION, CANARY})

SLICE_S: Final = 0.002


class Slices:
    """Long work on the loop, cut in slices of about 2 ms: everything else gets its turn between them."""

    def __init__(self) -> None:
        self._end_s = monotonic_s() + SLICE_S

    async def cut(self) -> None:
        """Let the loop turn if the slice is used up."""
        if monotonic_s() >= self._end_s:
            await asyncio.sleep(0)
            self._end_s = monotonic_s() + SLICE_S


class Choice:
    """A version that was picked, and why: one arm of a route."""

    __slots__ = ("_sheds", "arm", "is_evidence", "metrics", "target")

    def __init__(self, target: Target, arm: str, metrics: ArmMetrics) -> None:
        self.target = target
        self.arm = arm
        self.metrics = metrics
        self.is_evidence = arm in EVIDENCE
        self._sheds: dict[int, Shed] = {}

    def shed(self, retry_s: int) -> Shed:
        """Return what those are told for whom the version has no room."""
        found = self._sheds.get(retry_s)
        if found is None:
            text = f"version {self.target.key} has no room, or no answer before the deadline"
            found = self._sheds[retry_s] = Shed(Overloaded(text, retry_after_s=retry_s), self.target.ref)
        return found


class Rescue:
    """One thing to try after a failure: another version, or the constant. `to` is its name in marks and metrics."""

    __slots__ = ("by", "to")

    def __init__(self, to: str, by: Target | Constant) -> None:
        self.to = to
        self.by = by


class ShadowArm:
    """A version that gets copies of a route's requests. `seed` makes each route's sample its own."""

    __slots__ = ("compare", "deadline_s", "route", "sample", "seed", "target")

    def __init__(
        self, route: str, target: Target, sample: int, compare: dict[str, Comparison], deadline_s: float
    ) -> None:
        self.route = route
        self.target = target
        self.sample = sample
        self.seed = crc32(route.encode())
        self.compare = compare
        self.deadline_s = deadline_s


class CompiledRoute:
    """One route over the versions of a pool. Raises ValueError when its ranges are no split."""

    def __init__(self, route: Route, pool: Pool, metrics: Metrics, split: Split | None = None) -> None:
        self.route = route
        self.name = route.name
        self.split = split or Split(route.variants)
        self.deadline_s = route.deadline_ms / 1000
        self.metrics = metrics.route(route.name)
        self.champion_signature = _signature(pool, route.champion)
        weighted = [_signature(pool, variant.version) for variant in route.variants if variant.weight]
        self.interface = interface(
            route.signature, self.champion_signature, [signature for signature in weighted if signature is not None]
        )
        self._pool = pool
        self._all_metrics = metrics
        self._versions = {version: _now(pool, version) for version in route.versions()}
        choices = [self._choice(version, arm) for version, arm in _arms(route)]
        self._choices = choices[: len(route.variants)]
        self._only = choices[0] if len(self._choices) == 1 else None
        self._weighted = [
            choice for choice, variant in zip(self._choices, route.variants, strict=True) if variant.weight
        ]
        self._matches = list(zip(route.matches, choices[len(route.variants) :], strict=True))
        self.rescues = [rescue for fallback in route.fallback if (rescue := self._rescue(fallback)) is not None]
        self.shadows = [
            ShadowArm(self.name, self._target(shadow.version, MATCHED), shadow.sample, shadow.compare, self.deadline_s)
            for shadow in route.shadows
        ]

    @property
    def signature(self) -> Signature | None:
        """What callers send and get; None until the champion has told its own."""
        champion = self.champion_signature
        return msgspec.structs.replace(champion, inputs=self.interface.inputs) if champion is not None else None

    def knows(self, version: str) -> bool:
        """Tell whether a version of the route still is as it was when the route was compiled."""
        return self._versions[version] == _now(self._pool, version)

    def is_current(self, route: Route) -> bool:
        """Tell whether compiling `route` now would come to the same."""
        return route == self.route and all(map(self.knows, self._versions))

    def pick(self, request: PredictRequest, draw: float) -> Choice:
        """Return who answers: a match, the owner of the sticky key's bucket, else of the drawn one (0 <= draw < 1)."""
        for match, choice in self._matches:
            if is_match(match, request.headers):
                return choice
        if self._only is not None:
            return self._only
        sticky = self.route.sticky
        key = sticky_key(sticky, request.headers, request.parameters) if sticky is not None else None
        number = bucket(sticky.salt, key) if sticky is not None and key is not None else int(draw * BUCKETS)
        return self._choices[self.split.owner(number)]

    def possible(self, headers: CallerHeaders, draw: float) -> Sequence[Choice]:
        """Return who may answer, as far as headers tell; first the one that would for this draw.

        More than one where the draw decides, none where the body does.
        """
        for match, choice in self._matches:
            if is_match(match, headers):
                return (choice,)
        if self._only is not None:
            return (self._only,)
        sticky = self.route.sticky
        key = sticky_key(sticky, headers, {}) if sticky is not None else None
        if sticky is not None and key is not None:
            return (self._choices[self.split.owner(bucket(sticky.salt, key))],)
        if sticky is not None and sticky.parameter is not None:
            return ()
        drawn = self._choices[self.split.owner(int(draw * BUCKETS))]
        return (drawn, *(choice for choice in self._weighted if choice is not drawn))

    def _choice(self, version: str, arm: str) -> Choice:
        target = self._target(version, arm)
        return Choice(target, arm, self._all_metrics.arm(self.name, target.ref, arm))

    def _target(self, version: str, arm: str) -> Target:
        served = self._pool.get(version)
        signature = served.signature if served is not None else None
        ref = VersionRef.parse(version)
        if signature is None:
            return Target(ref, served)
        if arm in EVIDENCE:
            return Target(ref, served, whole(signature, self.interface))
        droppable = frozenset(spec.name for spec in self.interface.inputs) | frozenset(self.interface.ignored)
        return Target(ref, served, own(signature, self.interface), droppable)

    def _rescue(self, fallback: Fallback) -> Rescue | None:
        if fallback.kind == "value":
            outputs = self.champion_signature.outputs if self.champion_signature is not None else ()
            try:
                return Rescue("value", Constant(fallback.value, outputs))
            except (InvalidInput, TypeError) as error:
                _LOG.error("route %s: fallback value cannot be used: %s", self.name, error)
                return None
        version = self.route.champion if fallback.kind == CHAMPION else self.route.previous
        return Rescue(fallback.kind, self._target(version, CHAMPION)) if version is not None else None


class Table:
    """All routes of a snapshot, compiled over a pool.

    `generation` is the one that answers carry; 0 while a start only holds versions and has published no routes.
    """

    def __init__(self, snapshot: Snapshot, routes: dict[str, CompiledRoute], pool: Pool, metrics: Metrics) -> None:
        self.snapshot = snapshot
        self.generation = snapshot.routes_generation
        self.routes = routes
        self._pool = pool
        self._metrics = metrics
        known = {version.rpartition("@")[0] for version in snapshot.catalogue}
        self._models = known.union(entry.model for entry in snapshot.versions)
        self._pinned: dict[tuple[str, int], Choice] = {}

    def model_of(self, name: str) -> str | None:
        """Return the model whose versions `name` may be asked for: its own, else that of the route's champion."""
        if name in self._models:
            return name
        route = self.routes.get(name)
        return VersionRef.parse(route.route.champion).model if route is not None else None

    def unknown(self, name: str) -> NotFound | NotReady:
        """Return the error for a name that is neither a route nor a model.

        While versions are only held, nobody can tell yet: clients try again after NotReady, and never after NotFound.
        """
        return self._unless_starting(f"Request for unknown model: '{name}' is not found")

    def unknown_version(self, name: str, number: int) -> NotFound | NotReady:
        """Return the error for a version that is not in the pool: it may exist and not be loaded."""
        model = self.model_of(name)
        if model is None:
            return self.unknown(name)
        state = "is not loaded" if f"{model}@{number}" in self.snapshot.catalogue else "is not found"
        return self._unless_starting(f"Request for unknown model: '{name}' version {number} {state}")

    def pinned(self, name: str, number: int) -> Choice:
        """Return the choice of one version by its number.

        Raises NotFound unless it is loaded or being loaded, NotReady before the first routes.
        """
        choice = self._pinned.get((name, number))
        if choice is None:
            choice = self._pin(name, number)
            if choice.target.is_known:
                self._pinned[name, number] = choice
        return choice

    def _unless_starting(self, message: str) -> NotFound | NotReady:
        return NotFound(message) if self.generation else NotReady("no routes are in force yet")

    def _pin(self, name: str, number: int) -> Choice:
        model = self.model_of(name)
        if model is None:
            raise self.unknown(name)
        ref = VersionRef(model, number)
        served = self._pool.get(str(ref))
        if served is None:
            raise self.unknown_version(name, number)
        route = self.routes.get(name)
        signature = served.signature
        sent = route.interface if route is not None else Interface()
        target = Target(
            ref,
            served,
            own(signature, Interface()) if signature is not None else None,
            frozenset(spec.name for spec in sent.inputs) | frozenset(sent.ignored),
        )
        return Choice(target, PINNED, self._metrics.arm(name if route is not None else "", ref, PINNED))


async def compiled(snapshot: Snapshot, pool: Pool, metrics: Metrics, old: Table | None) -> Table:
    """Compile a snapshot's routes, in slices. Those that come to the same as in the `old` table are taken over.

    Versions may change meanwhile: their callers are told "not ready" until the next table. Raises ValueError when a
    route's ranges are no split.
    """
    slices = Slices()
    known = old.routes if old is not None else {}
    routes: dict[str, CompiledRoute] = {}
    for route in snapshot.routes:
        found = known.get(route.name)
        if found is None or not found.is_current(route):
            # The first time, an arm's numbers take more time than all the rest.
            for version, arm in _arms(route):
                metrics.arm(route.name, VersionRef.parse(version), arm)
                await slices.cut()
            split = found.split if found is not None and found.route.variants == route.variants else None
            found = CompiledRoute(route, pool, metrics, split)
        routes[route.name] = found
        await slices.cut()
    return Table(snapshot, routes, pool, metrics)


def _signature(pool: Pool, version: str) -> Signature | None:
    served = pool.get(version)
    return served.signature if served is not None else None


def _now(pool: Pool, version: str) -> tuple[ServedVersion | None, Engine | None]:
    """Return what a route is compiled from: other bytes are another version, a load brings the engine."""
    served = pool.get(version)
    return served, served.engine if served is not None else None


def _arms(route: Route) -> list[tuple[str, str]]:
    """Return each version that may be picked, with its arm: the variants, then the matches."""
    split = [(variant.version, CHAMPION if variant.version == route.champion else CANARY) for variant in route.variants]
    return [*split, *((match.version, MATCHED) for match in route.matches)]
