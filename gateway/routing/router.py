"""From a request to its answer: look up, pick, check, run, fall back, record, copy to shadows."""

import logging
import random
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.doors.interface import Answer
from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.routing.long_answers import LongAnswers
from gateway.routing.recorder import Recorder
from gateway.routing.shadow import Shadows
from gateway.routing.table import CHAMPION, PINNED, Choice, CompiledRoute, Rescue, Table
from gateway.routing.target import Target
from gateway.serving.loading import Call
from gateway.serving.served_version import ServedVersion
from turnout.core.clock import Deadline
from turnout.core.errors import Blame, Internal, ModelFault, NotFound, NotReady, TurnoutError
from turnout.core.request import Prediction, PredictRequest
from turnout.core.snapshot import DEFAULT_DEADLINE_MS
from turnout.core.status import Outcome, status_of
from turnout.core.tensor import TensorMap
from turnout.core.traceparent import child

_LOG: Final = logging.getLogger(__name__)


class Router:
    """Routes by a table that is swapped whole. `seed` makes the draws repeatable, for tests."""

    def __init__(
        self, metrics: Metrics, access_log: AccessLog | None, pressure: Pressure, *, seed: int | None = None
    ) -> None:
        self.table: Table | None = None
        self.metrics = metrics
        self._recorder = Recorder(metrics, access_log)
        self._draw = random.Random(seed).random  # noqa: S311  a split needs no secrecy
        self._shadows = Shadows(metrics, pressure)
        self._long_answers = LongAnswers()

    def swap(self, table: Table) -> None:
        """Route by `table` from now on."""
        self.table = table
        self._shadows.follow(table)

    def predict(self, request: PredictRequest) -> Answer:
        """Route, run and record one request, as `gateway.doors.interface.Backend` says."""
        visit = self._begin(request)
        try:
            attempt = _attempt(visit.choice.target, request, visit.call)
            prediction = attempt.now()
        except Exception as error:  # noqa: BLE001  `_named` sorts them
            failure = _named(error, request)
            if _rescues(visit, failure):
                return self._wait(visit, None, failure)
            self._recorder.routed(request, visit.route, visit.choice, visit.call, status_of(failure).outcome, failure)
            try:
                raise failure from failure.__cause__
            finally:
                del failure  # its traceback holds this frame: the two, and all tensors, would wait for the collector
        if prediction is None:
            return self._wait(visit, attempt, None)
        if visit.route is not None and visit.choice.is_evidence:
            self._learn(visit, visit.route, prediction)
        self._recorder.routed(request, visit.route, visit.choice, visit.call, Outcome.OK)
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
                    if visit.route is not None and visit.choice.is_evidence:
                        self._learn(visit, visit.route, prediction)
                    return prediction
            assert failure is not None
            outcome = status_of(failure).outcome
            prediction = await self._rescue(visit, failure)
            if prediction is None:
                raise failure
            return prediction
        finally:
            in_flight.add(-1)
            mark = prediction.fallback if prediction is not None else None
            self._recorder.routed(visit.request, visit.route, visit.choice, visit.call, outcome, failure, mark)
            failure = None  # as above

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
        at_s = request.received_s + (route.deadline_s if route is not None else DEFAULT_DEADLINE_MS / 1000)
        deadline = request.deadline
        if deadline is None or deadline.at_s > at_s:
            deadline = Deadline(at_s)
        return _Visit(request, route, choice, Call(request.request_id, deadline, traceparent))

    def _learn(self, visit: "_Visit", route: CompiledRoute, prediction: Prediction) -> None:
        """Count what a version of the split predicted, and copy what the champion answered to the shadows."""
        served = visit.choice.target.served
        if served is not None and served.predicted is not None:
            served.predicted.count(prediction.outputs)
        if route.shadows and visit.choice.arm == CHAMPION and visit.call.rows != 0:
            for arm in route.shadows:
                self._shadows.offer(arm, visit.request, prediction.outputs, visit.call.rows)

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


class _Visit(msgspec.Struct, eq=False, gc=False):
    """One request on its way: the route it came by, None for one version of a model, and who was picked."""

    request: PredictRequest
    route: CompiledRoute | None
    choice: Choice
    call: Call


class _Attempt(msgspec.Struct, eq=False, gc=False):
    """One version asked, with what it takes of the request; `outputs` are its answer while that waits to be written."""

    target: Target
    served: ServedVersion
    request: PredictRequest
    call: Call
    inputs: TensorMap
    wanted: Sequence[str]
    fallback: str | None
    outputs: TensorMap | None = None

    def now(self) -> Prediction | None:
        """Return the answer if nothing has to be waited for; else None, and `later` does what is left."""
        request, rows = self.request, self.call.rows
        if rows == 0:
            return _written(
                Prediction(self.target.no_rows(self.wanted), self.target.ref, request.generation, self.fallback),
                request,
            )
        outputs = self.served.predict_now(self.inputs, self.wanted, self.call, rows)
        writer = request.writer
        if outputs is None or (writer is not None and writer.writes_long(outputs)):
            self.outputs = outputs
            return None
        return _written(Prediction(outputs, self.target.ref, request.generation, self.fallback), request)

    async def later(self, long_answers: LongAnswers) -> Prediction:
        """Return the answer, however long it takes. Not for no rows: `now` answers those."""
        outputs, request = self.outputs, self.request
        if outputs is None:
            outputs = await self.served.predict(self.inputs, self.wanted, self.call, self.call.rows)
        prediction = Prediction(outputs, self.target.ref, request.generation, self.fallback)
        if request.writer is not None and request.writer.writes_long(outputs):
            return await long_answers.written(_written, prediction, request, self.call.deadline)
        return _written(prediction, request)


def _attempt(target: Target, request: PredictRequest, call: Call, fallback: str | None = None) -> _Attempt:
    """Return one version asked. Raises what is wrong with the version or the request."""
    served = target.ready()
    inputs, call.rows = target.inputs(request.inputs)
    wanted = target.wanted(request.outputs) if request.outputs else target.outputs
    return _Attempt(target, served, request, call, inputs, wanted, fallback)


def _rescues(visit: _Visit, failure: TurnoutError) -> bool:
    """Tell whether the route's fallbacks are tried.

    Nothing helps a caller's own mistake, and who asked for one version wants no other.
    """
    if visit.route is None or not visit.route.rescues or visit.choice.arm == PINNED:
        return False
    return failure.blame not in (Blame.CALLER, Blame.NOBODY)


async def _rescued(rescue: Rescue, request: PredictRequest, call: Call, long_answers: LongAnswers) -> Prediction:
    if isinstance(rescue.by, Target):
        attempt = _attempt(rescue.by, request, call, rescue.to)
        return attempt.now() or await attempt.later(long_answers)
    rows = next((tensor.rows for tensor in request.inputs.values()), 1)
    outputs = rescue.by.answer(request.outputs, rows)
    return _written(Prediction(outputs, None, request.generation, rescue.to), request)


def _written(prediction: Prediction, request: PredictRequest) -> Prediction:
    """Let the door write the answer, so that one it cannot write counts as what it is."""
    if request.writer is not None:
        try:
            prediction.written = request.writer.write(prediction, request)
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
