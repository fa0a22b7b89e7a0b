"""Everything the HTTP door offers beside prediction: metadata, health, configuration, statistics, the repository."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.doors import json_body, tf_serving
from gateway.doors.about import EXTENSIONS, SERVER_NAME, SERVER_VERSION, check_repository_call
from gateway.doors.caller import Caller
from gateway.doors.envelope import version_number
from gateway.doors.http_headers import Headers
from gateway.doors.interface import Backend, ModelDescription, VersionStatistics
from gateway.doors.request_body import BodyIntake
from gateway.limits import Limits
from turnout.core.errors import NotFound
from turnout.core.signature import TensorSpec

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Document = TypeVar("Document")

_ENCODER: Final = msgspec.json.Encoder()
_STATS: Final = "stats"


class _IndexBody(msgspec.Struct):
    ready: bool = False


class _RepositoryBody(msgspec.Struct):
    parameters: dict[str, Any] | None = None


_INDEX: Final = msgspec.json.Decoder(_IndexBody)
_REPOSITORY: Final = msgspec.json.Decoder(_RepositoryBody)


class Resources:
    """The answers of the routes; each reads the path, asks the gateway behind the door, and writes JSON."""

    def __init__(self, backend: Backend, limits: Limits, intake: BodyIntake, *, repository_control: bool) -> None:
        self._backend = backend
        self._limits = limits
        self._intake = intake
        self._repository_control = repository_control

    def routes(self) -> list[Route]:
        """Return the table; every path is taken with and without a slash at its end."""
        model, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/v2", self.server),
            ("GET", "/v2/health/live", self.live),
            ("GET", "/v2/health/ready", self.ready),
            ("GET", "/v2/models/stats", self.all_statistics),
            ("POST", "/v2/repository/index", self.index),
            ("POST", "/v2/repository/models/{model}/load", self.load),
            ("POST", "/v2/repository/models/{model}/unload", self.unload),
        ]
        for path in (model, versioned):
            table += [
                ("GET", path, self.model),
                ("GET", path + "/ready", self.model_ready),
                ("GET", path + "/config", self.configuration),
                ("GET", path + "/stats", self.statistics),
            ]
        for path in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
            table.append(("GET", path, self.tf_status))
        return [
            Route(path + slash, handler, methods=[method]) for method, path, handler in table for slash in ("", "/")
        ]

    async def server(self, _: Request) -> Response:
        """Describe the server."""
        return _json({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        """Tell that the process answers."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """Tell whether the server is ready: 200 or 503."""
        ready = self._backend.is_ready()
        return _json({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        """Describe a route or a version."""
        return _json(_metadata(self._backend.describe(*_target(request))))

    async def model_ready(self, request: Request) -> Response:
        """Tell whether a route's champion, or a version, is ready: 200 or 503."""
        name, number = _target(request)
        ready = self._backend.is_model_ready(name, number)
        return _json({"name": name, "ready": ready}, 200 if ready else 503)

    async def configuration(self, request: Request) -> Response:
        """Show the model's configuration as Triton's clients read it."""
        return _json(self._backend.configuration(*_target(request)))

    async def statistics(self, request: Request) -> Response:
        """Show counters of a route's versions, or of one."""
        return _json(_statistics(self._backend.statistics(*_target(request))))

    async def all_statistics(self, _: Request) -> Response:
        """Show the counters of all versions, unless a route is called `stats`: then it is described like any other."""
        try:
            return _json(_metadata(self._backend.describe(_STATS, None)))
        except NotFound:
            return _json(_statistics(self._backend.statistics(None, None)))

    async def index(self, request: Request) -> Response:
        """List the versions that the repository knows."""
        wanted = await self._body(request, _INDEX, _IndexBody())
        return _json(list(self._backend.index(ready_only=wanted.ready)))

    async def load(self, request: Request) -> Response:
        """Read a model from the folder again; answers when it has taken effect."""
        await self._check_repository_call(request)
        await self._backend.repository_load(request.path_params["model"])
        return _json({})

    async def unload(self, request: Request) -> Response:
        """Drop a model; answers when it has taken effect."""
        await self._check_repository_call(request)
        await self._backend.repository_unload(request.path_params["model"])
        return _json({})

    async def tf_status(self, request: Request) -> Response:
        """Show the states of versions as TF Serving does."""
        return _json(tf_serving.status(self._backend, *_target(request)))

    async def _check_repository_call(self, request: Request) -> None:
        check_repository_call(allowed=self._repository_control, parameters=())
        body = await self._body(request, _REPOSITORY, _RepositoryBody())
        check_repository_call(allowed=True, parameters=body.parameters or ())

    async def _body(self, request: Request, decoder: msgspec.json.Decoder[Document], empty: Document) -> Document:
        def read(body: bytes | bytearray | memoryview) -> Document:
            text = bytes(body)
            return json_body.read(decoder, text, self._limits.nesting) if text.strip() else empty

        task = asyncio.current_task()
        assert task is not None
        caller = Caller(task)
        headers = Headers(dict(request.scope["headers"]))
        holding = self._intake.holding()
        try:
            return await self._intake.take(request.receive, headers, caller, read, holding)
        except asyncio.CancelledError:
            why = caller.why()
            if why is None:
                raise
            raise why from None
        finally:
            holding.release()


def _target(request: Request) -> tuple[str, int | None]:
    """Return the route's or model's name and the version in a path. Raises NotFound for a version that is no number."""
    name = request.path_params["model"]
    return name, version_number(request.path_params.get("version"), name)


def _json(value: Any, status: int = 200) -> Response:
    return Response(_ENCODER.encode(value), status, media_type="application/json")


def _metadata(model: ModelDescription) -> Mapping[str, Any]:
    document: dict[str, Any] = {
        "name": model.name,
        "versions": model.versions,
        "platform": model.platform,
        "inputs": [_spec(spec) for spec in model.inputs],
        "outputs": [_spec(spec) for spec in model.outputs],
    }
    if model.properties:
        document["properties"] = model.properties
    return document


def _spec(spec: TensorSpec) -> Mapping[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _statistics(versions: Iterable[VersionStatistics]) -> Mapping[str, Any]:
    return {
        "model_stats": [
            {
                "name": version.name,
                "version": version.version,
                "last_inference": version.last_inference_ms,
                "inference_count": version.inference_count,
                "execution_count": version.execution_count,
                "inference_stats": {
                    "success": version.success,
                    "fail": version.fail,
                    "queue": version.queue,
                    "compute_input": version.compute_input,
                    "compute_infer": version.compute_infer,
                    "compute_output": version.compute_output,
                },
                "batch_stats": [],
            }
            for version in versions
        ]
    }
