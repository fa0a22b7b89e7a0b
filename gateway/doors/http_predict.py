"""Prediction over HTTP, whatever the form of its body: receive, read, ask the gateway behind the door, write, send.

A prediction comes either by ASGI, or with its whole body at once by the prediction lane (`prediction_lane.py`). Both
ways share one exchange, so that they answer alike. Nothing here that only some requests need.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from gateway.doors.caller import Caller, Receive, Scope, Send
from gateway.doors.compression import PACK_FROM_BYTES, pack, wants_gzip
from gateway.doors.envelope import caller_deadline, refuse_sequence, request_id, traceparent, version_number
from gateway.doors.http_answer import GZIP, JSON, OCTETS, end, error_parts, our_headers, start
from gateway.doors.http_headers import CONTENT_LENGTH, DEADLINE_MS, JSON_LENGTH, REQUEST_ID, TRACEPARENT, Headers, Pair
from gateway.doors.interface import Answer, Backend
from gateway.doors.kept_answer import KeptAnswer
from gateway.doors.request_body import Body, BodyIntake
from gateway.pressure import Holding
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import Internal, TurnoutError
from turnout.core.request import Parameter, Prediction, PredictRequest
from turnout.core.signature import TensorSpec
from turnout.core.tensor import TensorMap

_log = logging.getLogger(__name__)

PROTOCOL: Final = "http"

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


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

    def writes_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""


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


class Response(NamedTuple):
    """A whole answer; `pairs` are its headers, the body's length among them."""

    status: int
    pairs: list[Pair]
    body: bytes

    def packed(self, body: bytes) -> "Response":
        """Return the same answer with its body as gzip."""
        pairs = [pair for pair in self.pairs if pair[0] != CONTENT_LENGTH]
        return Response(self.status, [*pairs, GZIP, _length(body)], body)


class Exchange:
    """One prediction from its heading to its response. `request` is set once the router has it."""

    __slots__ = (
        "_backend",
        "_kept",
        "_received_s",
        "_target",
        "_version",
        "headers",
        "request",
        "request_id",
    )

    def __init__(self, backend: Backend, target: Target, headers: Headers) -> None:
        self.headers = headers
        self.request_id = request_id(headers.text(REQUEST_ID))
        self.request: PredictRequest | None = None
        self._backend = backend
        self._target = target
        self._received_s = monotonic_s()
        self._version: int | None = None
        self._kept: KeptAnswer[Written]

    def reader(self) -> Callable[[Body], ReadBody]:
        """Return what decodes the body, perhaps on a thread. Raises NotFound, NotReady."""
        target, headers = self._target, self.headers
        self._version = version_number(target.version, target.route)
        specs: Sequence[TensorSpec] = ()
        if target.form.typed_by_model(headers):
            specs = self._backend.describe(target.route, self._version).inputs
        return lambda body: target.form.read(body, headers, specs)

    def ask(self, body: ReadBody) -> Answer:
        """Hand the request to the gateway. Raises InvalidInput, and what the gateway refuses it with."""
        headers, route, identity = self.headers, self._target.route, self.request_id
        deadline = trace = None
        if body.parameters or DEADLINE_MS in headers.raw:
            refuse_sequence(body.parameters)
            deadline = caller_deadline(headers.text(DEADLINE_MS), body.parameters)
        if deadline is not None:
            # The caller's time runs from its first byte, not from the end of its body.
            deadline = Deadline(deadline.at_s - (monotonic_s() - self._received_s))
        if TRACEPARENT in headers.raw:
            trace = traceparent(headers.text(TRACEPARENT))
        self._kept = KeptAnswer(lambda prediction: body.write(prediction, route, identity))
        self.request = PredictRequest(
            route=route,
            version=self._version,
            inputs=body.inputs,
            outputs=body.outputs,
            protocol=PROTOCOL,
            request_id=identity,
            received_s=self._received_s,
            headers=headers,
            parameters=body.parameters,
            id=body.id,
            deadline=deadline,
            traceparent=trace,
            encode=self._kept,
            encodes_long=body.writes_long,
        )
        return self._backend.predict(self.request)

    def response(self, prediction: Prediction) -> Response:
        """Return the response of this very answer."""
        written = self._kept.of(prediction)
        pairs: list[Pair] = [JSON]
        if written.json_bytes is not None:
            pairs = [OCTETS, (JSON_LENGTH, b"%d" % written.json_bytes)]
        pairs.append(_length(written.body))
        pairs += our_headers(self.request_id, prediction.generation, prediction.version, prediction.fallback)
        return Response(200, pairs, written.body)

    def refusal(self, failure: TurnoutError) -> Response:
        """Return the response of a failure, and record it unless the router has."""
        request = self.request
        picked, generation = None, 0
        if request is None:
            self._backend.refused(self._target.route, PROTOCOL, failure, self.request_id, self._received_s)
        else:
            picked, generation = request.picked, request.generation
        status, pairs, body = error_parts(failure, self.request_id)
        return Response(
            status, pairs + our_headers(self.request_id, generation or self._backend.generation, picked, None), body
        )


class Predictions:
    """Serves predictions of all forms for one door."""

    def __init__(self, backend: Backend, intake: BodyIntake) -> None:
        self._backend = backend
        self._intake = intake

    def begin(self, target: Target, headers: Headers, body: bytes) -> Response | App:
        """Answer one request whose body is here, if nothing has to be waited for; else return who answers it."""
        exchange = Exchange(self._backend, target, headers)
        try:
            answer = exchange.ask(exchange.reader()(body))
            if not isinstance(answer, Prediction):
                return self._rest(exchange, answer, len(body))
            response = exchange.response(answer)
        except TurnoutError as error:
            return exchange.refusal(error)
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            return exchange.refusal(_unforeseen(exchange))
        if _is_packed(response, headers):
            return self._rest(exchange, answer, 0)
        return response

    def shed(self, target: Target, headers: Headers) -> Response | None:
        """Return the refusal of a request for which there is no room, from its heading alone; None if it may be taken.

        To be asked while the backend's `pressure.presses`.
        """
        received_s, identity = monotonic_s(), request_id(headers.text(REQUEST_ID))
        try:
            version = version_number(target.version, target.route)
            deadline = caller_deadline(headers.text(DEADLINE_MS), {})
        except TurnoutError:
            return None  # it is told so the long way
        shed = self._backend.shed(target.route, version, headers, PROTOCOL, identity, received_s, deadline)
        if shed is None:
            return None
        status, pairs, body = error_parts(shed.error, identity)
        return Response(status, pairs + our_headers(identity, self._backend.generation, shed.version, None), body)

    async def serve(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with an error if need be; says nothing to a caller that left."""
        headers = Headers(scope["headers"])
        shed = self.shed(target, headers) if self._backend.pressure.presses else None
        if shed is None:
            exchange = Exchange(self._backend, target, headers)
            await self._complete(exchange, None, self._intake.holding(), scope, receive, send)
        else:
            await send(start(shed.status, shed.pairs))
            await send(end(shed.body))

    def _rest(self, exchange: Exchange, answer: Answer, size: int) -> App:
        holding = self._intake.holding()
        holding.add(size)

        async def rest(scope: Scope, receive: Receive, send: Send) -> None:
            await self._complete(exchange, answer, holding, scope, receive, send)

        return rest

    async def _complete(
        self, exchange: Exchange, answer: Answer | None, holding: Holding, scope: Scope, receive: Receive, send: Send
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        caller = Caller(task)
        try:
            if answer is None:
                reader = exchange.reader()
                answer = exchange.ask(await self._intake.take(receive, exchange.headers, caller, reader, holding))
            if not isinstance(answer, Prediction):
                answer = await caller.awaits(scope, receive, answer)
            response = exchange.response(answer)
            if _is_packed(response, exchange.headers):
                response = response.packed(await self._intake.run(pack, response.body))
        except TurnoutError as error:
            response = exchange.refusal(error)
        except asyncio.CancelledError:
            why = caller.why()
            if why is None:
                raise
            response = exchange.refusal(why)
        except Exception:  # noqa: BLE001  as in `begin`
            response = exchange.refusal(_unforeseen(exchange))
        finally:
            holding.release()
        if not caller.gone:
            await send(start(response.status, response.pairs))
            await send(end(response.body))


def _length(body: bytes) -> Pair:
    return CONTENT_LENGTH, b"%d" % len(body)


def _is_packed(response: Response, headers: Headers) -> bool:
    return len(response.body) >= PACK_FROM_BYTES and wants_gzip(headers)


def _unforeseen(exchange: Exchange) -> Internal:
    _log.exception("request %s failed", exchange.request_id)
    return Internal("unforeseen")
