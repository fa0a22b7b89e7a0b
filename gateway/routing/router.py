"""From a request to its answer: look up, pick, check, run, fall back, record, copy to shadows."""

import logging
import random
from typing import Final

from gateway.doors.interface import Answer
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import Metrics
from gateway.observe.tracing import child
from gateway.routing.long_answers import LongAnswers
from gateway.routing.recorder import Recorder
from gateway.routing.shadow import Shadows
from gateway.routing.table import CHAMPION, PINNED, Choice, CompiledRoute, Rescue, Table
from gateway.routing.target import Target
from gateway.serving.loading import Call
from turnout.core.clock import Deadline
from turnout.core.errors import Blame, Internal, ModelFault, NotFound, NotReady, TurnoutError
from turnout.core.request import Prediction, PredictRequest
from turnout.core.signature import rows_of
from turnout.core.snapshot import DEFAULT_DEADLINE_MS
from turnout.core.status import Outcome, status_of
from turnout.core.tensor import TensorMap

_LOG: Final = logging.getLogger(__name__)


class Router:
    """Routes by a table that is swapped whole. `seed` makes the draws repeatable, for tests."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None, *, seed: int | None = None) -> None:
        self.table: Table | None = None
        self.metrics = metrics
        self._recorder = Recorder(metrics, access_log)
        self._draw = random.Random(seed).random  # noqa: S311  a split needs no secrecy
        self._shadows = Shadows(metrics)
        self._long_answers = LongAnswers()

    def swap(self, table: Table) -> None:
        """Route by `table` from now on."""
        self.table = table
        self._shadows.follow(table)

    def predict(self, request: PredictRequest) -> Answer:
        """Route, run and record one request, as `gateway.doors.interface.Backend` says."""
        visit = self._begin(request)
        try:
            attempt = _Attempt(visit.choice.target, request, visit.call)
            prediction = attempt.now()
        except Exception as error:  # noqa: BLE001  `_named` sorts them
            failure = _named(error, request)
            if _rescues(visit, failure):
                return self._wait(visit, None, failure)
            self._end(visit, status_of(failure).outcome, failure, None)
            raise failure from failure.__cause__
        if prediction is None:
            return self._wait(visit, attempt, None)
        self._learn(visit, prediction)
        self._end(visit, Outcome.OK, None, prediction)
        return prediction

    async def _wait(self, visit: "_Visit", attempt: "_Attempt | None", failure: TurnoutError | None) -> Prediction:
        """Do what is left of a request: the attempt, or after its failure the rescue."""
        in_flight = self.metrics.route(visit.route.name if visit.route is not None else "").in_flight
        in_flight.add()
        outcome = Outcome.CANCELLED  # unless it ends otherwise
        prediction: Prediction | None = None
        try:
            if attempt is not None:
                try:
                    prediction = await attempt.later(self._long_answers)
                except Exception as error:  # noqa: BLE001  `_named` sorts them
                    failure = _named(error, visit.request)
                else:
                    outcome = Outcome.OK
                    self._learn(visit, prediction)
                    return prediction
            assert failure is not None
            outcome = status_of(failure).outcome
            prediction = await self._rescue(visit, failure)
            if prediction is None:
                raise failure
            return prediction
        finally:
            in_flight.add(-1)
            self._end(visit, outcome, failure, prediction)

    def refused(self, route: str, protocol: str, error: TurnoutError, request_id: str, received_s: float) -> None:
        """Record a request that reached no version: the door refused it, or its name is unknown."""
        table = self.table
        self._recorder.refused(
            route,
            protocol,
            error,
            request_id,
            received_s,
            known=table is not None and route in table.routes,
            generation=table.generation if table is not None else 0,
        )

    def shed(
        self, name: str, choice: Choice, protocol: str, error: TurnoutError, request_id: str, received_s: float
    ) -> None:
        """Record a request that its heading alone showed to be too much for the version that it would have got."""
        table = self.table
        generation = table.generation if table is not None else 0
        self._recorder.shed(name, choice, protocol, error, request_id, received_s, generation)

    async def close(self) -> None:
        """Stop the shadows, and let threads go."""
        await self._shadows.close()
        self._long_answers.close()

    def _begin(self, request: PredictRequest) -> "_Visit":
        """Return the request's way. Raises NotFound, NotReady, both recorded."""
        try:
            table = self.table
            if table is None:
                raise NotReady("no snapshot yet")
            request.generation = table.generation
            route = table.routes.get(request.route)
            if request.version is not None:
                choice = table.pinned(request.route, request.version)
            elif route is not None:
                choice = route.pick(request, self._draw())
            else:
                raise table.unknown(request.route)
        except (NotFound, NotReady) as error:
            self.refused(request.route, request.protocol, error, request.request_id, request.received_s)
            raise
        request.picked = choice.target.ref
        traceparent = child(request.traceparent) if request.traceparent is not None else None
        longest_s = route.deadline_s if route is not None else DEFAULT_DEADLINE_MS / 1000
        deadline = Deadline(request.received_s + longest_s)
        if request.deadline is not None:
            deadline = deadline.earlier(request.deadline)
        return _Visit(request, route, choice, Call(request.request_id, deadline, traceparent))

    def _learn(self, visit: "_Visit", prediction: Prediction) -> None:
        """Count what a version of the split predicted, and copy what the champion answered to the shadows."""
        route, choice, call = visit.route, visit.choice, visit.call
        if route is None or not choice.is_evidence:
            return
        served = choice.target.served
        if served is not None and served.predicted is not None:
            served.predicted.count(prediction.outputs)
        if choice.arm == CHAMPION and call.rows != 0:
            for arm in route.shadows:
                self._shadows.offer(arm, visit.request, prediction.outputs, call.rows)

    async def _rescue(self, visit: "_Visit", failure: TurnoutError) -> Prediction | None:
        """Try the route's fallbacks in order; return the first answer, or None."""
        route, request, call = visit.route, visit.request, visit.call
        if route is None or not _rescues(visit, failure):
            return None
        reason = status_of(failure).outcome
        for rescue in route.rescues:
            if isinstance(rescue.by, Target) and rescue.by.key == visit.choice.target.key:
                continue
            outcome = Outcome.CANCELLED
            again = Call(request.request_id, call.deadline, call.traceparent)
            try:
                prediction = await _rescued(rescue, request, again, self._long_answers)
            except Exception as error:  # noqa: BLE001  `_named` sorts them
                outcome = status_of(_named(error, request)).outcome
            else:
                outcome = Outcome.OK
                return prediction
            finally:
                call.predict_s += again.predict_s
                self.metrics.fallbacks(route.name, visit.choice.target.ref, rescue.to, reason, outcome).add()
        return None

    def _end(
        self, visit: "_Visit", outcome: Outcome, failure: TurnoutError | None, prediction: Prediction | None
    ) -> None:
        self._recorder.routed(visit.request, visit.route, visit.choice, visit.call, outcome, failure, prediction)


class _Visit:
    """One request on its way: the route it came by, None for one version of a model, and who was picked."""

    __slots__ = ("call", "choice", "request", "route")

    def __init__(self, request: PredictRequest, route: CompiledRoute | None, choice: Choice, call: Call) -> None:
        self.request = request
        self.route = route
        self.choice = choice
        self.call = call


class _Attempt:
    """One version asked: raises what is wrong with the request, the version or its answer."""

    __slots__ = ("_call", "_fallback", "_inputs", "_outputs", "_request", "_rows", "_served", "_target", "_wanted")

    def __init__(self, target: Target, request: PredictRequest, call: Call, fallback: str | None = None) -> None:
        self._target = target
        self._request = request
        self._call = call
        self._fallback = fallback
        self._served = target.ready()
        self._inputs = target.inputs(request.inputs)
        self._wanted = target.wanted(request.outputs)
        self._outputs: TensorMap | None = None
        call.rows = self._rows = rows_of(target.signature, self._inputs)

    def now(self) -> Prediction | None:
        """Return the answer if nothing has to be waited for; else None, and `later` does what is left."""
        if self._rows == 0:
            return _encoded(self._prediction(self._target.no_rows(self._wanted)), self._request)
        outputs = self._served.predict_now(self._inputs, self._wanted, self._call, self._rows)
        if outputs is None or self._encodes_long(outputs):
            self._outputs = outputs
            return None
        return _encoded(self._prediction(outputs), self._request)

    async def later(self, long_answers: LongAnswers) -> Prediction:
        """Return the answer, however long it takes. Not for no rows: `now` answers those."""
        outputs = self._outputs
        if outputs is None:
            outputs = await self._served.predict(self._inputs, self._wanted, self._call, self._rows)
        prediction = self._prediction(outputs)
        if self._encodes_long(outputs):
            return await long_answers.written(_encoded, prediction, self._request, self._call.deadline)
        return _encoded(prediction, self._request)

    def _prediction(self, outputs: TensorMap) -> Prediction:
        return Prediction(outputs, self._target.ref, self._request.generation, self._fallback)

    def _encodes_long(self, outputs: TensorMap) -> bool:
        return self._request.encodes_long is not None and self._request.encodes_long(outputs)


def _rescues(visit: _Visit, failure: TurnoutError) -> bool:
    """Tell whether the route's fallbacks are tried.

    Nothing helps a caller's own mistake, and who asked for one version wants no other.
    """
    if visit.route is None or not visit.route.rescues or visit.choice.arm == PINNED:
        return False
    return failure.blame not in (Blame.CALLER, Blame.NOBODY)


async def _rescued(rescue: Rescue, request: PredictRequest, call: Call, long_answers: LongAnswers) -> Prediction:
    if isinstance(rescue.by, Target):
        attempt = _Attempt(rescue.by, request, call, rescue.to)
        return attempt.now() or await attempt.later(long_answers)
    rows = next((tensor.rows for tensor in request.inputs.values()), 1)
    outputs = rescue.by.answer(request.outputs, rows)
    return _encoded(Prediction(outputs, None, request.generation, rescue.to), request)


def _encoded(prediction: Prediction, request: PredictRequest) -> Prediction:
    """Let the door write the answer, so that one it cannot write counts as what it is."""
    if request.encode is not None:
        try:
            request.encode(prediction)
        except ModelFault as fault:
            _LOG.error("request %s: version %s: %s", request.request_id, prediction.version, fault.message)
            raise
    return prediction


def _named(error: Exception, request: PredictRequest) -> TurnoutError:
    """Return a failure of the tree; what nobody foresaw is logged and becomes Internal."""
    if isinstance(error, TurnoutError):
        return error
    _LOG.error("request %s: internal error", request.request_id, exc_info=error)
    internal = Internal("internal error")
    internal.__cause__ = error
    return internal
