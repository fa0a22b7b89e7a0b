"""The HTTP door: one ASGI callable. Prediction is dispatched by hand, everything else is a table of routes.

Translates only: no rule of routing, readiness or admission lives here.
"""

import logging
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import Router

from gateway.doors.caller import Message, Receive, Scope, Send
from gateway.doors.envelope import request_id
from gateway.doors.http_answer import end, error_parts, our_headers, start
from gateway.doors.http_codec import InferForm
from gateway.doors.http_headers import REQUEST_ID, Headers
from gateway.doors.http_predict import Form, Predictions, Target
from gateway.doors.http_routes import Resources
from gateway.doors.interface import Backend
from gateway.doors.request_body import BodyIntake
from gateway.doors.tf_serving import PredictForm
from gateway.limits import Limits
from turnout.core.errors import Internal, MethodNotAllowed, NotFound, TurnoutError

_log = logging.getLogger(__name__)

_V2: Final = "/v2/models/"
_V1: Final = "/v1/models/"
_PREDICT: Final = ":predict"
_MAX_SHOWN_PATH: Final = 256


class HttpDoor:
    """The ASGI callable. Tells predictions from the rest by their path; knows how every other answer is dressed.

    `repository_control` lets callers load and unload models.
    """

    def __init__(self, backend: Backend, limits: Limits, *, repository_control: bool) -> None:
        self._backend = backend
        self._intake = BodyIntake(limits, backend.pressure)
        self.predictions = Predictions(backend, self._intake)
        self._infer = InferForm(limits)
        self._predict = PredictForm(limits)
        resources = Resources(backend, limits, self._intake, repository_control=repository_control)
        self._router = Router(resources.routes(), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's life."""
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        target = self.target(scope["path"])
        if target is not None and scope["method"] == "POST":
            await self.predictions.serve(target, scope, receive, send)
        else:
            await self._other(target, scope, receive, send)

    def target(self, path: str) -> Target | None:
        """Return what a prediction's path asks for, or None for any other path."""
        form: Form
        read_json = None
        if path.startswith(_V2):
            parts = path[len(_V2) :].removesuffix("/").split("/")
            if parts.pop() != "infer":
                return None
            form, read_json = self._infer, self._infer.read_json
        elif path.startswith(_V1) and path.removesuffix("/").endswith(_PREDICT):
            parts = path[len(_V1) :].removesuffix("/").removesuffix(_PREDICT).split("/")
            form = self._predict
        else:
            return None
        if len(parts) == 1:
            return Target(form, parts[0], None, read_json)
        if len(parts) == 3 and parts[1] == "versions":
            return Target(form, parts[0], parts[2])
        return None

    async def _other(self, target: Target | None, scope: Scope, receive: Receive, send: Send) -> None:
        identity = request_id(Headers(dict(scope["headers"])).text(REQUEST_ID))
        ours = our_headers(identity, self._backend.generation, None, None)
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        try:
            if target is not None:
                raise _not_allowed(scope, "POST")
            scope["app"] = self  # then the router raises instead of answering in plain text
            await self._router(scope, receive, dressed)
        except TurnoutError as error:
            failure = error
        except HTTPException as error:
            failure = _unrouted(scope, error)
        except Exception:
            _log.exception("request %s failed", identity)
            if started:
                raise
            failure = Internal("unforeseen")
        else:
            return
        status, pairs, body = error_parts(failure, identity)
        await dressed(start(status, pairs))
        await send(end(body))

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the server's start and stop, where it tells them; any other kind of connection is none of ours."""
        while scope["type"] == "lifespan":
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._intake.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})


def _unrouted(scope: Scope, error: HTTPException) -> TurnoutError:
    """Return our own words for a path or method that the table does not have."""
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _not_allowed(scope, (error.headers or {}).get("Allow", ""))
    return NotFound(f"there is nothing at {scope['path'][:_MAX_SHOWN_PATH]}")


def _not_allowed(scope: Scope, allowed: str) -> MethodNotAllowed:
    return MethodNotAllowed(
        f"method {scope['method']} is not allowed at {scope['path'][:_MAX_SHOWN_PATH]}; use {allowed}",
        allowed=tuple(allowed.split(", ")),
    )
