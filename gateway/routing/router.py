"""From a request to its answer: look up, pick, check, run, fall back, record, copy to shadows."""

import logging
import random
from typing import Final

from gateway.observe.access_log import AccessLog
from gateway.observe.metrics import Metrics
from gateway.observe.tracing import child
from gateway.routing.recorder import Recorder
from gateway.routing.shadow import Shadows
from gateway.routing.table import CHAMPION, PINNED, Choice, CompiledRoute, Rescue, Table, unknown
from gateway.routing.target import Target
from gateway.serving.loading import Call
from turnout.core.clock import Deadline
from turnout.core.errors import Blame, Internal, ModelFault, NotFound, NotReady, TurnoutError
from turnout.core.request import Prediction, PredictRequest
from turnout.core.signature import rows_of
from turnout.core.status import Outcome, status_of

_LOG: Final = logging.getLogger(__name__)


class Router:
    """Routes by a table that is swapped whole. `seed` makes the draws repeatable, for tests."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None, *, seed: int | None = None) -> None:
        self.table: Table | None = None
        self.metrics = metrics
        self._recorder = Recorder(metrics, access_log)
        self._draw = random.Random(seed).random  # noqa: S311  a split needs no secrecy
        self._shadows = Shadows(metrics)

    def swap(self, table: Table) -> None:
        """Route by `table` from now on."""
        self.table = table
        self._shadows.follow(table)

    async def predict(self, request: PredictRequest) -> Prediction:
        """Route, run and record one request, as `gateway.doors.interface.Backend` says."""
        route, choice, longest_s = self._choose(request)
        request.picked = choice.target.ref
        deadline = Deadline(request.received_s + longest_s).earlier(request.deadline)
        call = Call(request.request_id, deadline, child(request.traceparent))
        in_flight = self.metrics.route(route.name if route is not None else "").in_flight
        in_flight.add()
        outcome = Outcome.CANCELLED  # unless it ends otherwise
        failure: TurnoutError | None = None
        prediction: Prediction | None = None
        try:
            try:
                prediction = await _attempt(choice.target, request, call)
            except Exception as error:  # noqa: BLE001  `_named` sorts them
                failure = _named(error, request)
                outcome = status_of(failure).outcome
            else:
                outcome = Outcome.OK
                self._learn(route, choice, request, call, prediction)
                return prediction
            prediction = await self._rescue(route, choice, request, call, failure)
            if prediction is None:
                raise failure
            return prediction
        finally:
            in_flight.add(-1)
            self._recorder.routed(request, route, choice, call, outcome, failure, prediction)

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

    async def close(self) -> None:
        """Stop the shadows."""
        await self._shadows.close()

    def _choose(self, request: PredictRequest) -> tuple[CompiledRoute | None, Choice, float]:
        """Return the request's route, the choice, and how long it may take. Raises NotFound, NotReady."""
        try:
            table = self.table
            if table is None:
                raise NotReady("no snapshot yet")
            request.generation = table.generation
            route = table.routes.get(request.route)
            if request.version is not None:
                return route, table.pinned(request.route, request.version), table.deadline_s(request.route)
            if route is None:
                raise unknown(request.route)
            return route, route.pick(request, self._draw()), route.deadline_s
        except (NotFound, NotReady) as error:
            self.refused(request.route, request.protocol, error, request.request_id, request.received_s)
            raise

    def _learn(
        self,
        route: CompiledRoute | None,
        choice: Choice,
        request: PredictRequest,
        call: Call,
        prediction: Prediction,
    ) -> None:
        """Count what a version of the split predicted, and copy what the champion answered to the shadows."""
        if route is None or not choice.is_evidence:
            return
        served = choice.target.served
        if served is not None and served.predicted is not None:
            served.predicted.count(prediction.outputs)
        if choice.arm == CHAMPION and call.rows != 0:
            for arm in route.shadows:
                self._shadows.offer(arm, request, prediction.outputs, call.rows)

    async def _rescue(
        self, route: CompiledRoute | None, choice: Choice, request: PredictRequest, call: Call, failure: TurnoutError
    ) -> Prediction | None:
        """Try the route's fallbacks in order; return the first answer, or None.

        Nothing helps a caller's own mistake, and who asked for one version wants no other.
        """
        if route is None or choice.arm == PINNED or failure.blame in (Blame.CALLER, Blame.NOBODY):
            return None
        reason = status_of(failure).outcome
        for rescue in route.rescues:
            if isinstance(rescue.by, Target) and rescue.by.key == choice.target.key:
                continue
            outcome = Outcome.CANCELLED
            again = Call(request.request_id, call.deadline, call.traceparent)
            try:
                prediction = await _rescued(rescue, request, again)
            except Exception as error:  # noqa: BLE001  `_named` sorts them
                outcome = status_of(_named(error, request)).outcome
            else:
                outcome = Outcome.OK
                return prediction
            finally:
                call.predict_s += again.predict_s
                self.metrics.fallbacks(route.name, choice.target.ref, rescue.to, reason, outcome).add()
        return None


async def _attempt(target: Target, request: PredictRequest, call: Call, fallback: str | None = None) -> Prediction:
    """Ask one version; raises what is wrong with the request, the version or its answer."""
    served = target.ready()
    inputs = target.inputs(request.inputs)
    wanted = target.wanted(request.outputs)
    call.rows = rows = rows_of(target.signature, inputs)
    outputs = target.no_rows(wanted) if rows == 0 else await served.predict(inputs, wanted, call, rows)
    return _encoded(Prediction(outputs, target.ref, request.generation, fallback), request)


async def _rescued(rescue: Rescue, request: PredictRequest, call: Call) -> Prediction:
    if isinstance(rescue.by, Target):
        return await _attempt(rescue.by, request, call, rescue.to)
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
