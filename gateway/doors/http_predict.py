"""Prediction over HTTP, whatever the form of its body: receive, read, ask the gateway behind the door, write, send.

A prediction comes either by ASGI, or with its whole body at once by the prediction lane (`prediction_lane.py`). Both
ways share one exchange, so that they answer alike. Nothing here that only some requests need.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.doors.answer import Written
from gateway.doors.caller import Caller, Receive, Scope, Send
from gateway.doors.compression import PACK_FROM_BYTES, pack, wants_gzip
from gateway.doors.envelope import caller_deadline, deadline_header_s, refuse_sequence, request_id, version_number
from gateway.doors.http_answer import (
    GZIP,
    OCTETS,
    end,
    error_parts,
    lines_of,
    our_lines,
    pairs_of,
    piece,
    shed_parts,
    start,
)
from gateway.doors.http_headers import CONTENT_LENGTH, DEADLINE_MS, JSON_LENGTH, REQUEST_ID, TRACEPARENT, Headers
from gateway.doors.interface import Answer, Backend
from gateway.doors.request_body import Body, BodyIntake
from gateway.pressure import Holding
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import Internal, TurnoutError
from turnout.core.request import AnswerWriter, Parameter, Prediction, PredictRequest
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Buffer, TensorMap
from turnout.core.traceparent import accepted

_log = logging.getLogger(__name__)

PROTOCOL: Final = "http"


class ReadBody(Protocol):
    """A decoded body, and who writes its answer."""

    @property
    def inputs(self) -> TensorMap:
        """The tensors by name."""

    @property
    def writer(self) -> AnswerWriter:
        """What writes the answer, as `Written`."""

    @property
    def outputs(self) -> Sequence[str]:
        """The outputs asked for, none for all."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The request's own parameters."""

    @property
    def id(self) -> str:
        """The caller's name of the request."""


class Form(Protocol):
    """One wire form of prediction."""

    def typed_by_model(self, headers: Headers) -> bool:
        """Tell whether the body can be read only with the model's inputs at hand."""

    def read(self, body: Body, headers: Headers, specs: Sequence[TensorSpec]) -> ReadBody:
        """Decode a body, perhaps on a thread. Raises InvalidInput."""


class Target:
    """What a path asks for: a route, perhaps a version, in a form.

    `read_json` reads plain JSON bodies of a route, where the form needs nothing else for that.
    """

    __slots__ = ("form", "read_json", "route", "version")

    def __init__(
        self, form: Form, route: str, version: str | None, read_json: Callable[[bytes], ReadBody] | None = None
    ) -> None:
        self.form = form
        self.route = route
        self.version = version
        self.read_json = read_json


class Response(msgspec.Struct, gc=False):
    """A whole answer; `lines` are its headers as they go over the wire, the body's length among them.

    `raws` follow the body.
    """

    status: int
    lines: bytes
    body: bytes
    raws: tuple[Buffer, ...] = ()

    def is_packed(self, headers: Headers) -> bool:
        """Tell whether its caller wants it as gzip, and it is worth that."""
        size = len(self.body)
        if self.raws:
            size += sum(map(len, self.raws))
        return size >= PACK_FROM_BYTES and wants_gzip(headers)

    def whole(self) -> bytes:
        """Return the whole body in one piece."""
        return b"".join((self.body, *self.raws))

    def packed(self, body: bytes) -> "Response":
        """Return the same answer with its body as gzip."""
        pairs = [pair for pair in pairs_of(self.lines) if pair[0] != CONTENT_LENGTH]
        return Response(self.status, lines_of([*pairs, GZIP, (CONTENT_LENGTH, b"%d" % len(body))]), body)


class Exchange(msgspec.Struct, eq=False, gc=False):
    """One prediction from its heading to its response. `request` is set once the router has it."""

    backend: Backend
    target: Target
    headers: Headers
    request_id: str
    received_s: float
    version: int | None = None
    request: PredictRequest | None = None

    def reader(self) -> Callable[[Body], ReadBody]:
        """Return what decodes the body, perhaps on a thread. Raises NotFound, NotReady."""
        target, headers = self.target, self.headers
        self.version = version_number(target.version, target.route)
        specs: Sequence[TensorSpec] = ()
        if target.form.typed_by_model(headers):
            specs = self.backend.describe(target.route, self.version).inputs
        return lambda body: target.form.read(body, headers, specs)

    def ask(self, body: ReadBody) -> Answer:
        """Hand the request to the gateway. Raises InvalidInput, and what the gateway refuses it with."""
        headers, raw, parameters = self.headers, self.headers.raw, body.parameters
        deadline = trace = None
        if parameters:
            refuse_sequence(parameters)
            deadline = caller_deadline(headers.text(DEADLINE_MS), parameters, self.received_s)
        elif DEADLINE_MS in raw:
            deadline = Deadline(self.received_s + deadline_header_s(raw[DEADLINE_MS].decode("latin-1")))
        if TRACEPARENT in raw:
            trace = accepted(raw[TRACEPARENT].decode("latin-1"))
        self.request = request = PredictRequest(
            route=self.target.route,
            version=self.version,
            inputs=body.inputs,
            outputs=body.outputs,
            protocol=PROTOCOL,
            request_id=self.request_id,
            received_s=self.received_s,
            headers=headers,
            parameters=parameters,
            id=body.id,
            deadline=deadline,
            traceparent=trace,
            writer=body.writer,
        )
        return self.backend.predict(request)

    def response(self, prediction: Prediction) -> Response:
        """Return the response of this very answer."""
        written: Written = prediction.written
        body, raws = written.body, written.raws
        ours = our_lines(self.request_id, prediction.generation, prediction.version, prediction.fallback)
        if not raws:
            return Response(
                200, b"content-type: application/json\r\ncontent-length: %d\r\n%b" % (len(body), ours), body
            )
        kind = lines_of((OCTETS, (JSON_LENGTH, b"%d" % len(body))))
        lines = b"%bcontent-length: %d\r\n%b" % (kind, len(body) + sum(map(len, raws)), ours)
        return Response(200, lines, body, raws)

    def refusal(self, failure: TurnoutError) -> Response:
        """Return the response of a failure, and record it unless the router has."""
        request = self.request
        picked, generation = None, 0
        if request is None:
            self.backend.refused(self.target.route, PROTOCOL, failure, self.request_id, self.received_s)
        else:
            picked, generation = request.picked, request.generation
        status, pairs, body = error_parts(failure, self.request_id)
        ours = our_lines(self.request_id, generation or self.backend.generation, picked, None)
        return Response(status, lines_of(pairs) + ours, body)


class Later(msgspec.Struct, eq=False):
    """A prediction whose answer is not here yet, or has to be packed; `holding` are the bytes of its request."""

    exchange: Exchange
    answer: Answer
    holding: Holding

    async def prediction(self) -> Prediction:
        """Wait for the answer."""
        return self.answer if isinstance(self.answer, Prediction) else await self.answer


class Predictions:
    """Serves predictions of all forms for one door."""

    def __init__(self, backend: Backend, intake: BodyIntake) -> None:
        self._backend = backend
        self._intake = intake

    def begin(self, target: Target, headers: Headers, body: bytes, received_s: float) -> Response | Later:
        """Answer one request whose body is here, if nothing has to be waited for; else return what `finish` takes."""
        exchange = self._exchange(target, headers, received_s)
        try:
            if target.read_json is None or JSON_LENGTH in headers.raw:
                read = exchange.reader()(body)
            else:
                read = target.read_json(body)
            answer = exchange.ask(read)
            if not isinstance(answer, Prediction):
                holding = self._intake.holding()
                holding.add(len(body))
                return Later(exchange, answer, holding)
            response = exchange.response(answer)
        except TurnoutError as error:
            return exchange.refusal(error)
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            return exchange.refusal(_unforeseen(exchange))
        if response.is_packed(headers):
            return Later(exchange, answer, self._intake.holding())
        return response

    async def finish(self, later: Later, caller: Caller) -> Response:
        """Return the answer to wait for, or an error; whoever calls it tells `caller` when its connection is lost."""
        return await self._response(later.exchange, later.prediction(), later.holding, caller)

    def shed(self, target: Target, headers: Headers) -> Response | None:
        """Return the refusal of a request for which there is no room, from its heading alone; None if it may be taken.

        To be asked while the backend's `pressure.presses`.
        """
        identity = request_id(headers.text(REQUEST_ID))
        try:
            version = version_number(target.version, target.route)
            header_ms = headers.text(DEADLINE_MS)
            left_s = deadline_header_s(header_ms) if header_ms is not None else None
        except TurnoutError:
            return None  # it is told so the long way
        shed = self._backend.shed(target.route, version, headers, PROTOCOL, identity, monotonic_s(), left_s)
        if shed is None:
            return None
        status, lines, body = shed_parts(shed, self._backend.generation)
        return Response(status, b"".join((lines, REQUEST_ID, b": ", identity.encode(), b"\r\n")), body)

    async def serve(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with an error if need be; says nothing to a caller that left."""
        headers = Headers(dict(scope["headers"]))
        shed = self.shed(target, headers) if self._backend.pressure.presses else None
        if shed is None:
            await self._complete(
                self._exchange(target, headers, monotonic_s()), self._intake.holding(), scope, receive, send
            )
        else:
            await send(start(shed.status, pairs_of(shed.lines)))
            await send(end(shed.body))

    def _exchange(self, target: Target, headers: Headers, received_s: float) -> Exchange:
        offered = headers.raw.get(REQUEST_ID)
        identity = request_id(None if offered is None else offered.decode("latin-1"))
        return Exchange(self._backend, target, headers, identity, received_s)

    async def _complete(self, exchange: Exchange, holding: Holding, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        caller = Caller(task)

        async def prediction() -> Prediction:
            reader = exchange.reader()
            answer = exchange.ask(await self._intake.take(receive, exchange.headers, caller, reader, holding))
            return answer if isinstance(answer, Prediction) else await caller.awaits(scope, receive, answer)

        response = await self._response(exchange, prediction(), holding, caller)
        if not caller.gone:
            await send(start(response.status, pairs_of(response.lines)))
            *parts, last = (response.body, *response.raws)
            for part in parts:
                await send(piece(part))
            await send(end(last))

    async def _response(
        self, exchange: Exchange, prediction: Awaitable[Prediction], holding: Holding, caller: Caller
    ) -> Response:
        try:
            response = exchange.response(await prediction)
            if response.is_packed(exchange.headers):
                response = response.packed(await self._intake.run(pack, response.whole()))
        except TurnoutError as error:
            return exchange.refusal(error)
        except asyncio.CancelledError:
            why = caller.why()
            if why is None:
                raise
            return exchange.refusal(why)
        except Exception:  # noqa: BLE001  as in `begin`
            return exchange.refusal(_unforeseen(exchange))
        finally:
            holding.release()
        return response


def _unforeseen(exchange: Exchange) -> Internal:
    _log.exception("request %s failed", exchange.request_id)
    return Internal("unforeseen")
