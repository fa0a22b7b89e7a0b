"""The machine of publications: what is wanted, what gateways report -> the next snapshot. Pure: no clock, no I/O.

A change of routes is two publications (DESIGN 1): versions that it needs are held first; when every live gateway has
them ready and they fit together, routes follow. Until then, and when it is refused, the old routes go on.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from turnout.control.publish.compile import (
    Fault,
    compiled,
    declaration_fault,
    implicit,
    named,
    newly_needed,
    signature_faults,
    without,
)
from turnout.control.publish.gateways import Gateway, LiveGateways
from turnout.control.publish.state import (
    Compared,
    Declared,
    Dropped,
    Event,
    Imported,
    Pending,
    Refusal,
    Reported,
    State,
    Tick,
    Unloaded,
)
from turnout.core.ids import VersionRef
from turnout.core.report import GatewayReport
from turnout.core.signature import Signature
from turnout.core.snapshot import Route, Snapshot

MAX_GATEWAYS: Final = 1_000
CHANGED: Final = "its bytes changed since it was imported; changed ones need a new number"


class Step(NamedTuple):
    """The next state and what is to be published, with what happened to routes.

    `accepted` names the file whose routes are now in force, `refusal` says why some are not, `taken_out` are versions
    that turned out not to fit.
    """

    state: State
    publication: Snapshot | None = None
    accepted: str = ""
    refusal: Refusal | None = None
    taken_out: tuple[Fault, ...] = ()

    @property
    def cause(self) -> str:
        """Why there is a publication."""
        return self.accepted or ("first hold" if self.state.starting else "models and gateways")


class _Wanted(NamedTuple):
    """Routes and versions as they should be published now."""

    routes: tuple[Route, ...]
    hold: frozenset[str]
    pending: Pending | None
    refusal: Refusal | None
    taken_out: tuple[Fault, ...]


def decide(state: State, event: Event, now_s: float) -> Step:
    """Return what follows from an event at `now_s`, monotonic seconds."""
    state, refusal = observe(state, event, now_s)
    return advance(state, now_s, refusal)


def advance(state: State, now_s: float, refusal: Refusal | None = None) -> Step:
    """Return what follows from what is known; `refusal` is that of the event before, if any."""
    live = state.live(now_s)
    wanted = _wanted(state, live, now_s)
    refusal = refusal or wanted.refusal
    if wanted.refusal:
        state = msgspec.structs.replace(state, refused=wanted.refusal)
    if state.is_first and state.refused:
        # Nobody asked for the routes that models have of their own: versions are held until the file is mended.
        state = msgspec.structs.replace(state, pending=None, first_hold_s=now_s)
        return _published(state, (), wanted, "", refusal)
    if state.starting and not _may_begin(state, wanted, live, now_s):
        # The refused ones are forgotten; what waits, waits on until the first routes.
        state = msgspec.structs.replace(
            state,
            pending=None if wanted.refusal else state.pending,
            first_hold_s=now_s if state.first_hold_s is None else state.first_hold_s,
        )
        return _published(state, (), wanted, "", refusal)
    accepted = state.pending.source if state.pending and not wanted.pending and not wanted.refusal else ""
    state = msgspec.structs.replace(state, starting=False, pending=wanted.pending, before=wanted.routes)
    return _published(state, wanted.routes, wanted, accepted, refusal)


def load_failure(state: State, model: str, now_s: float) -> str | None:
    """Return why the newest version of a model does not come into service, or None."""
    newest = state.newest(model)
    return state.live(now_s).failure(newest) if newest else f"model '{model}' has no version that can be served"


def is_loaded(state: State, model: str, now_s: float) -> bool:
    """Tell whether live gateways serve the newest version of a model under its own name."""
    route = state.route(model)
    if route is None or route.explicit:
        return route is not None
    published = state.snapshot.routes_generation if state.snapshot else 0
    return route.champion == state.newest(model) and is_obeyed(state, published, now_s)


def is_obeyed(state: State, generation: int, now_s: float) -> bool:
    """Tell whether some gateway is live, and each live one obeys `generation` or a newer one."""
    live = state.live(now_s)
    return len(live) > 0 and live.obey(generation)


def observe(state: State, event: Event, now_s: float) -> tuple[State, Refusal | None]:
    """Take note of an event; return the refusal of routes that can be told wrong at once."""
    changed: dict[str, Any] = {}
    refusal: Refusal | None = None
    match event:
        case Imported(versions, present, problems, loaded, other):
            changed = {"versions": versions, "present": present, "problems": problems, "changed": other}
            changed["unloaded"] = state.unloaded - loaded
        case Compared(other):
            changed = {"changed": other}
        case Unloaded(model):
            changed = {"unloaded": state.unloaded | {model}}
        case Declared(routes, source):
            pending = Pending(routes, source, now_s)
            fault = declaration_fault(routes, state.versions, state.problems, _excused(state))
            refusal = pending.refusal(_explained(state, fault)) if fault else None
            changed = {"pending": None if fault else pending, "refused": refusal}
        case Dropped(refusal):
            changed = {"pending": None, "refused": refusal}
        case Reported(report):
            changed = _heard(state, report, now_s)
        case Tick():
            pass
    return msgspec.structs.replace(state, **changed), refusal


def _excused(state: State) -> frozenset[str] | None:
    """Return the versions that routes may name although their folders were refused; None for all.

    A first start takes what there is; its route is not ready, the others are. Later such routes may stay.
    """
    if state.is_first:
        return None
    return frozenset(version for route in state.before if route.explicit for version in named(route))


def _heard(state: State, report: GatewayReport, now_s: float) -> dict[str, Any]:
    lately = {
        name: gateway
        for name, gateway in state.gateways.items()
        if now_s - gateway.seen_s < state.times.gateway_live_s and name != report.gateway
    }
    changed: dict[str, Any] = {"gateways": lately}
    if len(lately) < MAX_GATEWAYS:
        changed["gateways"] = lately | {report.gateway: Gateway(report, now_s)}
    if report.registry_id == state.registry_id:
        told = {
            version: found.signature
            for version, found in report.versions.items()
            if found.signature is not None and version in state.versions
        }
        changed["signatures"] = {**state.signatures, **told}
    return changed


def _wanted(state: State, live: LiveGateways, now_s: float) -> _Wanted:
    before = {route.name: route for route in state.before}
    kept = {name: route for name, route in before.items() if route.explicit}
    explicit, pending, refusal = kept, state.pending, None
    waits_for: set[str] = set()
    if pending:
        target = {declared.name: compiled(declared, before.get(declared.name)) for declared in pending.routes}
        refusal = _refusal(state, pending, target, before, live, now_s)
        needed = {version for name, route in target.items() for version in newly_needed(before.get(name), route)}
        if refusal:
            pending = None
        elif state.starting or not live.waiting_for(needed):
            explicit, pending = target, None
        else:
            waits_for = {version for route in target.values() for version in named(route)}
    explicit, taken_out = _without_misfits(explicit, state.signatures)
    routes = explicit | _implicit(state, explicit, before, live)
    hold = {version for route in routes.values() for version in route.versions()} | waits_for
    hold |= {newest for model in state.present if model not in state.unloaded and (newest := state.newest(model))}
    ordered = tuple(routes[name] for name in sorted(routes))
    return _Wanted(ordered, frozenset(hold & state.versions.keys()), pending, refusal, taken_out)


def _refusal(
    state: State,
    pending: Pending,
    target: Mapping[str, Route],
    before: Mapping[str, Route],
    live: LiveGateways,
    now_s: float,
) -> Refusal | None:
    """Say why explicit routes cannot take effect. A start takes what there is, and asks only that it fits together."""
    for name, route in target.items():
        fault = next(signature_faults(route, state.signatures), None)
        if fault:
            return pending.refusal(_explained(state, fault))
        if state.starting:
            continue
        needed = sorted(newly_needed(before.get(name), route), key=VersionRef.parse)
        for version in needed:
            failure = live.failure(version)
            if failure:
                return pending.refusal(_explained(state, Fault(name, failure, version)))
        late = live.waiting_for(needed) if now_s - pending.since_s >= state.times.ready_within_s else []
        if late:
            reason = f"{late[0]} is not ready after {state.times.ready_within_s:g} s"
            return pending.refusal(Fault(name, reason if len(live) else f"{reason}: no gateway reports", late[0]))
    return None


def _explained(state: State, fault: Fault) -> Fault:
    """Add to the fault of a version that its folder holds other bytes now: whoever mended them there waits in vain."""
    return fault._replace(reason=f"{fault.reason}; {CHANGED}") if fault.version in state.changed else fault


def _without_misfits(
    routes: Mapping[str, Route], signatures: Mapping[str, Signature]
) -> tuple[dict[str, Route], tuple[Fault, ...]]:
    """Take out versions that turn out not to fit: those of a first start that were ready only after it."""
    fitting: dict[str, Route] = {}
    taken_out: list[Fault] = []
    for name, route in routes.items():
        fitting[name] = route
        for fault in signature_faults(route, signatures):
            if fault.version is not None and fault.version != route.champion:
                fitting[name] = without(fitting[name], fault.version)
                taken_out.append(fault)
    return fitting, tuple(taken_out)


def _implicit(
    state: State, explicit: Mapping[str, Route], before: Mapping[str, Route], live: LiveGateways
) -> dict[str, Route]:
    """Return the routes that models have of their own: to the newest version, once it is ready."""
    routes: dict[str, Route] = {}
    for model in state.present:
        newest, old = state.newest(model), before.get(model)
        if newest is None or model in explicit or model in state.unloaded:
            continue
        if state.starting or live.is_ready(newest):
            routes[model] = implicit(model, newest, old)
        elif old is not None and VersionRef.parse(old.champion).model == model:
            routes[model] = implicit(model, old.champion, old)
    return routes


def _may_begin(state: State, wanted: _Wanted, live: LiveGateways, now_s: float) -> bool:
    """Tell whether the first routes may be published: all versions are held and tried, or it took too long."""
    if state.first_hold_s is None or not wanted.hold <= state.since.keys():
        return False
    if now_s - state.first_hold_s >= state.times.first_routes_s:
        return True
    return len(live) > 0 and all(live.is_tried(version) for version in wanted.hold)


def _published(
    state: State, routes: tuple[Route, ...], wanted: _Wanted, accepted: str, refusal: Refusal | None
) -> Step:
    """Return the step, with a publication where the picture differs from the last one."""
    last, generation = state.snapshot, state.generation + 1
    if state.starting:
        routes_generation = 0
    elif last is not None and last.routes_generation and last.routes == routes:
        routes_generation = last.routes_generation
    else:
        routes_generation = generation
    snapshot = Snapshot(
        registry_id=state.registry_id,
        generation=generation,
        routes_generation=routes_generation,
        versions=tuple(
            msgspec.structs.replace(state.versions[version], trusted=state.trusted)
            for version in sorted(wanted.hold, key=VersionRef.parse)
        ),
        routes=routes,
        catalogue=tuple(sorted(_known(state) - wanted.hold, key=VersionRef.parse)),
        problems=dict(state.problems),
        refused=str(state.refused or "") if state.is_first else "",
    )
    unchanged = last is not None and msgspec.structs.replace(snapshot, generation=last.generation) == last
    since = {version: state.since.get(version, generation - unchanged) for version in wanted.hold}
    if unchanged:
        return Step(msgspec.structs.replace(state, since=since), None, accepted, refusal, wanted.taken_out)
    state = msgspec.structs.replace(state, snapshot=snapshot, generation=generation, since=since)
    return Step(state, snapshot, accepted, refusal, wanted.taken_out)


def _known(state: State) -> set[str]:
    """Return every version of the models that stand in FOLDER."""
    return {version for version, entry in state.versions.items() if entry.model in state.present}
