"""Prediction over HTTP, whatever the form of its body: receive, read, ask the gateway behind the door, write, send.

The quick path of the door: plain ASGI, no task of its own, nothing that only some requests need.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from gateway.doors.caller import Caller, Receive, Scope, Send
from gateway.doors.compression import PACK_FROM_BYTES, pack, wants_gzip
from gateway.doors.envelope import caller_deadline, refuse_sequence, request_id, traceparent, version_number
from gateway.doors.http_answer import GZIP, JSON, OCTETS, end, error_parts, our_headers, start
from gateway.doors.http_headers import CONTENT_LENGTH, DEADLINE_MS, JSON_LENGTH, REQUEST_ID, TRACEPARENT, Headers, Pair
from gateway.doors.interface import Backend
from gateway.doors.request_body import Body, BodyIntake
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import Internal, TurnoutError
from turnout.core.request import Parameter, Prediction, PredictRequest
from turnout.core.signature import TensorSpec
from turnout.core.tensor import TensorMap

_log = logging.getLogger(__name__)

PROTOCOL: Final = "http"


class Written(Protocol):
    """An answer's bytes; `json_bytes` is the length of its JSON where raw tensors follow it, else None."""

    @property
    def body(self) -> bytes:
        """The whole body."""

    @property
    def json_bytes(self) -> int | None:
        """Length of the JSON in front."""


class ReadBody(Protocol):
    """A decoded body, which knows how its answer is to be written."""

    inputs: TensorMap
    outputs: Sequence[str]
    parameters: Mapping[str, Parameter]
    id: str

    def write(self, prediction: Prediction, name: str, request_id: str) -> Written:
        """Return the answer's bytes. Raises ModelFault or InvalidInput for what the caller's form cannot carry."""


class Form(Protocol):
    """One wire form of prediction."""

    def typed_by_model(self, headers: Headers) -> bool:
        """Tell whether the body can be read only with the model's inputs at hand."""

    def read(self, body: Body, headers: Headers, specs: Sequence[TensorSpec]) -> ReadBody:
        """Decode a body, perhaps on a thread. Raises InvalidInput."""


class Target:
    """What a path asks for: a route, perhaps a version, in a form."""

    __slots__ = ("form", "route", "version")

    def __init__(self, form: Form, route: str, version: str | None) -> None:
        self.form = form
        self.route = route
        self.version = version


class Call:
    """One request from its body to its answer's bytes."""

    __slots__ = ("_prediction", "_written", "body", "request", "request_id", "route")

    def __init__(self, route: str, request_id: str, body: ReadBody) -> None:
        self.route = route
        self.request_id = request_id
        self.body = body
        self._prediction: Prediction | None = None
        self._written: Written | None = None

    def encode(self, prediction: Prediction) -> None:
        """Write the answer and keep it. The router calls this before it counts the outcome."""
        self._written = self.body.write(prediction, self.route, self.request_id)
        self._prediction = prediction

    def written(self, prediction: Prediction) -> Written:
        """Return the bytes of this very answer."""
        if self._written is None or self._prediction is not prediction:
            return self.body.write(prediction, self.route, self.request_id)
        return self._written


class PredictLane:
    """Serves predictions of all forms for one door."""

    def __init__(self, backend: Backend, intake: BodyIntake) -> None:
        self._backend = backend
        self._intake = intake

    async def serve(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with an error if need be; says nothing to a caller that left."""
        received_s = monotonic_s()
        headers = Headers(scope["headers"])
        identity = request_id(headers.text(REQUEST_ID))
        task = asyncio.current_task()
        assert task is not None
        caller = Caller(task)
        request: PredictRequest | None = None
        try:
            version = version_number(target.version, target.route)
            call = await self._read(target, version, headers, identity, receive, caller)
            request = _request(target.route, version, headers, call, received_s)
            prediction = await caller.awaits(scope, receive, self._backend.predict(request))
            written = call.written(prediction)
        except TurnoutError as error:
            failure = error
        except asyncio.CancelledError:
            why = caller.why()
            if why is None:
                raise
            failure = why
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            _log.exception("request %s failed", identity)
            failure = Internal("unforeseen")
        else:
            await self._answer(send, headers, identity, prediction, written)
            return
        if request is None:
            self._backend.refused(target.route, PROTOCOL, failure, identity, received_s)
        if not caller.gone:
            await self._refuse(send, identity, request, failure)

    async def _read(
        self,
        target: Target,
        version: int | None,
        headers: Headers,
        identity: str,
        receive: Receive,
        caller: Caller,
    ) -> Call:
        form = target.form
        specs: Sequence[TensorSpec] = ()
        if form.typed_by_model(headers):
            specs = self._backend.describe(target.route, version).inputs
        body = await self._intake.take(receive, headers, caller, lambda body: form.read(body, headers, specs))
        return Call(target.route, identity, body)

    async def _refuse(self, send: Send, identity: str, request: PredictRequest | None, failure: TurnoutError) -> None:
        status, pairs, body = error_parts(failure, identity)
        picked = None if request is None else request.picked
        generation = request.generation if request is not None and request.generation else self._backend.generation
        await send(start(status, pairs + our_headers(identity, generation, picked, None)))
        await send(end(body))

    async def _answer(
        self, send: Send, headers: Headers, identity: str, prediction: Prediction, written: Written
    ) -> None:
        body = written.body
        pairs: list[Pair] = [JSON]
        if written.json_bytes is not None:
            pairs = [OCTETS, (JSON_LENGTH, b"%d" % written.json_bytes)]
        if len(body) >= PACK_FROM_BYTES and wants_gzip(headers):
            body = await self._intake.run(pack, body)
            pairs.append(GZIP)
        pairs.append((CONTENT_LENGTH, b"%d" % len(body)))
        pairs += our_headers(identity, prediction.generation, prediction.version, prediction.fallback)
        await send(start(200, pairs))
        await send(end(body))


def _request(route: str, version: int | None, headers: Headers, call: Call, received_s: float) -> PredictRequest:
    body = call.body
    refuse_sequence(body.parameters)
    deadline = caller_deadline(headers.text(DEADLINE_MS), body.parameters)
    if deadline is not None:
        # The caller's time runs from its first byte, not from the end of its body.
        deadline = Deadline(deadline.at_s - (monotonic_s() - received_s))
    return PredictRequest(
        route=route,
        version=version,
        inputs=body.inputs,
        outputs=body.outputs,
        protocol=PROTOCOL,
        request_id=call.request_id,
        received_s=received_s,
        headers=headers,
        parameters=body.parameters,
        id=body.id,
        deadline=deadline,
        traceparent=traceparent(headers.text(TRACEPARENT)),
        encode=call.encode,
    )
