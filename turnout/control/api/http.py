"""The control API over HTTP: what gateways follow and report, and what operators ask. Translates; decides nothing.

- `GET /v1/snapshot?after=G&wait_s=25`: the canonical bytes of the snapshot as soon as its generation is another than G
  (header `turnout-snapshot-digest`; `turnout-blobs` names the local blob folder), or 304 when it still is G after
  `wait_s`. A gateway that refuses what it gets must pause before it asks again.
- `GET /v1/blobs/<sha256>`: bytes.
- `POST /v1/gateways/<gateway>/report`: a `GatewayReport`; 204.
- `POST /v1/repository/models/<name>/load` or `/unload`: `{}` once live gateways have followed.
- `GET /v1/routes`, `GET /v1/routes/<name>`: `RoutesAnswer`, `RouteAnswer`.
- `GET /v1/health/live`, `GET /metrics`.

Errors are `{"error": …, "code": …}` with the status of `turnout.core.status`.
"""

import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route as Path

from turnout.control.api.answers import ErrorAnswer, routes_answer
from turnout.control.metrics import CONTENT_TYPE
from turnout.control.plane import ControlPlane
from turnout.core.errors import Internal, InvalidInput, MethodNotAllowed, NotFound, TooLarge, TurnoutError
from turnout.core.ids import NAME_RULE, is_name
from turnout.core.report import GatewayReport
from turnout.core.status import shown_message, status_of

MAX_WAIT_S: Final = 60.0
MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_log: Final = logging.getLogger(__name__)


class ControlApi:
    """The endpoints over one control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._report = msgspec.json.Decoder(GatewayReport)

    def app(self) -> Starlette:
        """Return the ASGI app."""
        repository = "/v1/repository/models/{name}"
        return Starlette(
            routes=[
                Path("/v1/snapshot", self.snapshot, methods=["GET"]),
                Path("/v1/blobs/{sha256}", self.blob, methods=["GET"]),
                Path("/v1/gateways/{gateway}/report", self.report, methods=["POST"]),
                Path(f"{repository}/load", self.load, methods=["POST"]),
                Path(f"{repository}/unload", self.unload, methods=["POST"]),
                Path("/v1/routes", self.routes, methods=["GET"]),
                Path("/v1/routes/{name}", self.route, methods=["GET"]),
                Path("/v1/health/live", self.live, methods=["GET"]),
                Path("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={
                TurnoutError: _answer_error,
                HTTPException: _answer_http,
                Exception: _answer_unforeseen,
            },
        )

    async def snapshot(self, request: Request) -> Response:
        """Wait for a snapshot of another generation than the caller's."""
        after = int(_parameter(request, "after", "0", _WHOLE))
        wait_s = min(MAX_WAIT_S, float(_parameter(request, "wait_s", "0", _SECONDS)))
        publisher = self._plane.publisher

        def is_other() -> bool:
            return publisher.publication is not None and publisher.publication.snapshot.generation != after

        await publisher.until(is_other, wait_s)
        publication = publisher.publication
        if publication is None or publication.snapshot.generation == after:
            return Response(status_code=304)
        headers = {"turnout-snapshot-digest": publication.digest, "turnout-blobs": str(self._plane.blobs.root)}
        return Response(publication.data, headers=headers, media_type="application/json")

    async def blob(self, request: Request) -> Response:
        """Send a blob."""
        sha256 = request.path_params["sha256"]
        path = self._plane.blobs.find(sha256) if _SHA256.fullmatch(sha256) else None
        if path is None:
            raise NotFound(f"blob '{sha256}' is not found")
        return FileResponse(path, media_type="application/octet-stream")

    async def report(self, request: Request) -> Response:
        """Take a gateway's report."""
        try:
            report = self._report.decode(await _body(request))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidInput(f"the report cannot be read: {error}") from error
        if report.gateway != request.path_params["gateway"] or not is_name(report.gateway):
            raise InvalidInput(f"gateway '{report.gateway}': must be that of the path; {NAME_RULE}")
        self._plane.report(report)
        return Response(status_code=204)

    async def load(self, request: Request) -> Response:
        """Load a model from FOLDER."""
        return await self._repository(request, self._plane.load, "load")

    async def unload(self, request: Request) -> Response:
        """Unload a model."""
        return await self._repository(request, self._plane.unload, "unload")

    async def routes(self, _request: Request) -> Response:
        """Describe all routes."""
        return _json(routes_answer(self._plane.publisher))

    async def route(self, request: Request) -> Response:
        """Describe one route."""
        name = request.path_params["name"]
        found = next((route for route in routes_answer(self._plane.publisher).routes if route.name == name), None)
        if found is None:
            raise NotFound(f"route '{name}' is not found")
        return _json(found)

    async def live(self, _request: Request) -> Response:
        """Tell that the loop turns."""
        return _json({"live": True})

    async def metrics(self, _request: Request) -> Response:
        """Expose control's own metrics."""
        return Response(self._plane.metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    async def _repository(self, request: Request, act: Callable[[str], Awaitable[None]], what: str) -> Response:
        try:
            await act(request.path_params["name"])
        except TurnoutError:
            self._plane.metrics.refused.labels(what).inc()
            raise
        return _json({})


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _parameter(request: Request, name: str, default: str, form: re.Pattern[str]) -> str:
    text = request.query_params.get(name, default)
    if not form.fullmatch(text):
        raise InvalidInput(f"parameter '{name}': {text!r} is not a number that it takes")
    return text


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_REPORT_BYTES:
            raise TooLarge(f"a report is at most {MAX_REPORT_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TurnoutError)
    request_id = uuid.uuid4().hex
    status = status_of(error)
    if error.code == Internal.code:
        _log.error("request %s failed: %s", request_id, error, exc_info=error)
    answer = ErrorAnswer(shown_message(error, request_id), error.code)
    headers = {"allow": ", ".join(error.allowed)} if isinstance(error, MethodNotAllowed) else None
    return Response(msgspec.json.encode(answer), status.http, headers, "application/json")


async def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what Starlette found no endpoint for."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = tuple((error.headers or {}).get("Allow", "").split(", "))
        refusal = MethodNotAllowed(f"method {request.method} is not allowed here", allowed=allowed)
        return await _answer_error(request, refusal)
    return await _answer_error(request, NotFound(f"path '{request.url.path}' is not found"))


async def _answer_unforeseen(request: Request, error: Exception) -> Response:
    return await _answer_error(request, Internal(f"{type(error).__name__}: {error}"))
