"""Counts and logs each request exactly once, when its outcome is known."""

from typing import Final

from gateway.observe.access_log import AccessLog, AccessRecord
from gateway.observe.metrics import Metrics
from gateway.routing.table import NONE, Choice, CompiledRoute
from gateway.serving.loading import Call
from turnout.core.clock import monotonic_s, wall_s
from turnout.core.errors import TurnoutError
from turnout.core.request import PredictRequest
from turnout.core.status import Outcome, status_of

PROTOCOLS: Final = ("http", "grpc")


class Recorder:
    """Writes to the metrics and, where there is one, to the access log. It never waits and never fails a request."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None) -> None:
        self._metrics = metrics
        self._log = access_log
        unknown = metrics.arm("", None, NONE)
        for protocol in PROTOCOLS:
            unknown.requests(protocol, Outcome.NOT_FOUND)  # there from the start: names that nobody knows add no series

    def routed(
        self,
        request: PredictRequest,
        route: CompiledRoute | None,
        choice: Choice,
        call: Call,
        outcome: Outcome,
        failure: TurnoutError | None = None,
        fallback: str | None = None,
    ) -> None:
        """Record a request for which a version was picked; `outcome` is that of the picked version's attempt.

        `fallback` tells who rescued it.
        """
        duration_s = monotonic_s() - request.received_s
        arm = choice.metrics
        arm.requests(request.protocol, outcome).add()
        if route is None:
            arm.duration.observe(duration_s)
        else:
            arm.duration.observe_with(duration_s, route.metrics.overhead, max(0.0, duration_s - call.predict_s))
        served = choice.target.served
        if outcome is not Outcome.OK and served is not None:
            served.metrics.fail_seconds.add(duration_s)
        if self._log is None or not self._log.wants(request.request_id, failed=outcome is not Outcome.OK):
            return
        self._log.write(
            AccessRecord(
                time=wall_s(),
                request_id=request.request_id,
                trace_id=request.traceparent,
                protocol=request.protocol,
                route=request.route,
                version=choice.target.key,
                arm=choice.arm,
                generation=request.generation,
                outcome=outcome,
                fallback=fallback or "",
                rows=call.rows or 0,
                duration_us=int(duration_s * 1e6),
                predict_us=int(call.predict_s * 1e6),
                error=failure.message if failure is not None else "",
            )
        )

    def refused(
        self,
        route: str,
        protocol: str,
        error: TurnoutError,
        request_id: str,
        received_s: float,
        *,
        known: bool,
        generation: int,
    ) -> None:
        """Record a request that reached no version; the metrics name its route only where it is `known`."""
        duration_s = monotonic_s() - received_s
        outcome = status_of(error).outcome
        arm = self._metrics.arm(route if known else "", None, NONE)
        arm.requests(protocol, outcome).add()
        arm.duration.observe(duration_s)
        if self._log is not None and self._log.wants(request_id, failed=True):
            self._log.write(_not_run(request_id, protocol, route, "", NONE, generation, error, duration_s))

    def shed(
        self,
        route: str,
        choice: Choice,
        protocol: str,
        error: TurnoutError,
        request_id: str,
        received_s: float,
        generation: int,
    ) -> None:
        """Record a request that was shed unread. Under a flood each costs little: the log shows a sample of them."""
        duration_s = monotonic_s() - received_s
        outcome = status_of(error).outcome
        choice.metrics.requests(protocol, outcome).add()
        choice.metrics.duration.observe(duration_s)
        served = choice.target.served
        if served is not None:
            served.metrics.fail_seconds.add(duration_s)
        if self._log is not None and self._log.wants(request_id, failed=False):
            key, arm = choice.target.key, choice.arm
            self._log.write(_not_run(request_id, protocol, route, key, arm, generation, error, duration_s))


def _not_run(
    request_id: str,
    protocol: str,
    route: str,
    version: str,
    arm: str,
    generation: int,
    error: TurnoutError,
    duration_s: float,
) -> AccessRecord:
    """Return the record of a request that no model saw."""
    return AccessRecord(
        time=wall_s(),
        request_id=request_id,
        protocol=protocol,
        route=route,
        version=version,
        arm=arm,
        generation=generation,
        outcome=status_of(error).outcome,
        rows=0,
        duration_us=int(duration_s * 1e6),
        predict_us=0,
        error=error.message,
    )
