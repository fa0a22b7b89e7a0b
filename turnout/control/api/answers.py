"""What the control API answers, as structs that its clients decode too."""

import msgspec

from turnout.control.publish.gateways import Gateway, LiveGateways
from turnout.control.publish.publisher import Publisher
from turnout.core.clock import monotonic_s
from turnout.core.snapshot import Route

UNKNOWN: str = "unknown"


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Every error: a text for people, and an `ErrorCode`."""

    error: str
    code: str


class RouteAnswer(Route, frozen=True, kw_only=True):
    """A published route, and the state of each of its versions where it is least well."""

    states: dict[str, str]


class PendingAnswer(msgspec.Struct, frozen=True):
    """Routes that wait: where they come from, for how long already, and for which versions."""

    source: str
    waiting_s: float
    waiting_for: tuple[str, ...]


class GatewayAnswer(msgspec.Struct, frozen=True):
    """A gateway: the generation that it obeys, how long ago it reported, why it does not follow if it does not."""

    generation: int
    held: int
    reported_s_ago: float
    refused: str


class RoutesAnswer(msgspec.Struct, frozen=True):
    """All routes, what is under way and what went wrong. `refused` is why the routes file is not in force."""

    registry_id: str
    generation: int
    routes_generation: int
    routes: tuple[RouteAnswer, ...]
    pending: PendingAnswer | None
    refused: str
    problems: dict[str, str]
    gateways: dict[str, GatewayAnswer]


def routes_answer(publisher: Publisher) -> RoutesAnswer:
    """Describe everything that is published, and what is not."""
    state, now_s = publisher.state, monotonic_s()
    snapshot = publisher.publication.snapshot if publisher.publication else None
    live = state.live(now_s)
    return RoutesAnswer(
        registry_id=state.registry_id,
        generation=snapshot.generation if snapshot else 0,
        routes_generation=snapshot.routes_generation if snapshot else 0,
        routes=tuple(_route(route, live) for route in (snapshot.routes if snapshot else ())),
        pending=_pending(publisher, live, now_s),
        refused=str(publisher.refusal or ""),
        problems=dict(state.problems),
        gateways={name: _gateway(gateway, now_s) for name, gateway in sorted(state.gateways.items())},
    )


def _route(route: Route, live: LiveGateways) -> RouteAnswer:
    states = {version: str(live.worst(version) or UNKNOWN) for version in sorted(route.versions())}
    return RouteAnswer(**msgspec.structs.asdict(route), states=states)


def _pending(publisher: Publisher, live: LiveGateways, now_s: float) -> PendingAnswer | None:
    pending = publisher.state.pending
    if pending is None:
        return None
    versions = sorted({version for route in pending.routes for version in route.versions()})
    return PendingAnswer(pending.source, now_s - pending.since_s, tuple(live.waiting_for(versions)))


def _gateway(gateway: Gateway, now_s: float) -> GatewayAnswer:
    report = gateway.report
    return GatewayAnswer(report.generation, report.held, now_s - gateway.seen_s, report.refused)
