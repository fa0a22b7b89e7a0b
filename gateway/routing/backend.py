"""The gateway as its doors see it: one object over pool, router and follower."""

from collections.abc import Mapping, Sequence

from gateway.doors.interface import IndexEntry, ModelDescription, Timing, VersionStatistics
from gateway.observe import statistics
from gateway.observe.metrics import Metrics
from gateway.routing import described
from gateway.routing.follower import Follower
from gateway.routing.router import Router
from gateway.routing.shedding import Shedding
from gateway.routing.table import CompiledRoute, Table
from gateway.serving.pool import Pool
from gateway.serving.served_version import ServedVersion
from gateway.serving.stages import Stage
from turnout.core.errors import NotReady
from turnout.core.signature import Signature

_LOADED = frozenset({Stage.READY, Stage.LOST})


class GatewayBackend:
    """Implements `gateway.doors.interface.Backend`."""

    def __init__(self, pool: Pool, router: Router, follower: Follower, metrics: Metrics) -> None:
        self._pool = pool
        self._router = router
        self._follower = follower
        self._metrics = metrics
        self.pressure = pool.pressure
        self.shed = Shedding(router, pool.pressure).shed
        self.predict = router.predict
        self.refused = router.refused

    @property
    def generation(self) -> int:
        """The generation that last changed routes; 0 before the first snapshot."""
        return self._router.table.generation if self._router.table is not None else 0

    def describe(self, name: str, version: int | None) -> ModelDescription:
        """Return metadata of a route, or of one version of a model. Raises NotFound, NotReady."""
        served, signature = self._described(name, version)
        entry = served.entry
        return ModelDescription(
            name=name,
            versions=tuple(str(number) for number in self._loaded_numbers(name)),
            platform=described.platform(entry),
            inputs=signature.inputs,
            outputs=signature.outputs,
            properties=served.properties,
        )

    def is_ready(self) -> bool:
        """Tell whether the server is ready (DESIGN 6); false again while it drains."""
        return self._follower.machine_ready and not self._follower.draining

    def is_model_ready(self, name: str, version: int | None) -> bool:
        """Tell whether a route's champion, or the named version, is ready.

        A version or model that the repository knows and nothing serves, after an unload for example, is not ready.
        Raises NotFound for what nobody knows, NotReady before the first routes.
        """
        table = self._table()
        if version is not None:
            if f"{table.model_of(name)}@{version}" in table.snapshot.catalogue:
                return False
            served = self._version(name, version)
            return served.stage is Stage.READY and served.serving
        route = table.routes.get(name)
        if route is None:
            if table.model_of(name) is None:
                raise table.unknown(name)
            return False
        champion = self._pool.get(route.route.champion)
        if champion is None or champion.stage is not Stage.READY:
            return False
        return champion.serving and route.knows(champion.key)

    def index(self, *, ready_only: bool) -> Sequence[IndexEntry]:
        """List every known version."""
        table = self._router.table
        if table is None:
            return []
        entries = described.index(table.snapshot, self._pool.versions(), self._pool.leaving())
        return [entry for entry in entries if entry.state == described.READY or not ready_only]

    def configuration(self, name: str, version: int | None) -> Mapping[str, object]:
        """Return Triton's model configuration. Raises NotFound, NotReady."""
        served, signature = self._described(name, version)
        return described.configuration(name, served.entry, signature, gathers=served.gathers)

    def statistics(self, name: str | None, version: int | None) -> Sequence[VersionStatistics]:
        """Return counters of all loaded versions, a route's versions, or one version. Raises NotFound."""
        if name is None:
            wanted = list(self._pool.versions())
        elif version is not None:
            wanted = [self._version(name, version)]
        else:
            keys = self._route(name).route.versions()
            wanted = [served for served in self._pool.versions() if served.key in keys]
        counted = statistics.read(self._metrics.directory)
        wanted.sort(key=lambda served: served.ref)
        return [_statistics(served, counted) for served in wanted if served.stage in _LOADED]

    async def repository_load(self, name: str) -> None:
        """Read model `name` from the folder again. Raises what control refuses it with."""
        await self._follower.repository("load", name)

    async def repository_unload(self, name: str) -> None:
        """Drop the model's hold and implicit route. Raises what control refuses it with."""
        await self._follower.repository("unload", name)

    def _table(self) -> Table:
        table = self._router.table
        if table is None:
            raise NotReady("no snapshot yet")
        return table

    def _route(self, name: str) -> CompiledRoute:
        table = self._table()
        route = table.routes.get(name)
        if route is None:
            raise table.unknown(name)
        return route

    def _version(self, name: str, number: int) -> ServedVersion:
        table = self._table()
        model = table.model_of(name)
        served = self._pool.get(f"{model}@{number}") if model is not None else None
        if served is None:
            raise table.unknown_version(name, number)
        return served

    def _described(self, name: str, version: int | None) -> tuple[ServedVersion, Signature]:
        """Return the version that speaks for a name, and the signature to show. Raises NotFound, NotReady."""
        if version is not None:
            served: ServedVersion | None = self._version(name, version)
            signature = served.signature if served is not None else None
        else:
            route = self._route(name)
            served = self._pool.get(route.route.champion)
            signature = route.signature
        if served is None or signature is None:
            raise NotReady(f"'{name}' is not ready")
        return served, signature

    def _loaded_numbers(self, name: str) -> list[int]:
        model = self._table().model_of(name)
        return sorted(
            served.ref.number
            for served in self._pool.versions()
            if served.ref.model == model and served.stage in _LOADED
        )


def _statistics(served: ServedVersion, counted: Mapping[tuple[str, str], statistics.Counted]) -> VersionStatistics:
    name, number = served.ref.model, str(served.ref.number)
    found = counted.get((name, number), statistics.Counted())
    return VersionStatistics(
        name=name,
        version=number,
        last_inference_ms=int(found.last_answer_s * 1000),
        inference_count=found.rows,
        execution_count=found.answered_calls,
        success=_timing(found.answered, found.success_s),
        fail=_timing(found.failed, found.fail_s),
        queue=_timing(found.calls, found.queue_s),
        compute_input=_timing(found.calls, found.input_s),
        compute_infer=_timing(found.calls, found.predict_s),
        compute_output=_timing(found.calls, found.output_s),
    )


def _timing(count: int, seconds: float) -> Timing:
    return Timing(count, round(seconds * 1e9))
