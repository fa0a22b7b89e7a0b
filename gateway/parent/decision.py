"""Decides what the whole machine does from what its processes report. Pure: no clock, no I/O."""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.parent.messages import Report
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import Snapshot

# At a start, versions that are still loading hold nothing up for longer than this (DESIGN 6).
START_PATIENCE_S: Final = 30.0

_WORST_FIRST: Final = (VersionState.FAILED, VersionState.LOST, VersionState.LOADING, VersionState.READY)
_UNTRIED: Final = VersionReport(VersionState.LOADING)


class Step(enum.Enum):
    """What to do with a snapshot that the processes have been told to prepare."""

    COMMIT = "commit"
    WAIT = "wait"
    REFUSE = "refuse"


class Readiness(msgspec.Struct, frozen=True):
    """What the ready line counts, and why the machine is not ready; `reason` is empty when it is.

    `waiting`: something is under way that may yet make it ready.
    """

    models: int
    routes: int
    reason: str
    waiting: bool


def merge(reports: Sequence[Mapping[str, VersionReport]]) -> dict[str, VersionReport]:
    """Return one report a version for the machine: the worst state of any process, and the sum of crashed calls."""
    named = {version for versions in reports for version in versions}
    return {version: _merged([versions.get(version, _UNTRIED) for versions in reports]) for version in sorted(named)}


def _merged(reports: Sequence[VersionReport]) -> VersionReport:
    # A quarantine may be over, and just not have been told to a process yet: other failures go before it.
    worst = min(reports, key=lambda report: (_WORST_FIRST.index(report.state), report.quarantined))
    told = next((report for report in reports if report.signature is not None), worst)
    return VersionReport(
        worst.state,
        worst.reason,
        told.signature,
        told.properties,
        max(report.load_seconds for report in reports),
        sum(report.crashed_calls for report in reports),
        worst.quarantined,
    )


def required(snapshot: Snapshot) -> set[str]:
    """Return the versions that the machine must have: champions and weighted versions of explicit routes."""
    return {version for route in snapshot.routes if route.explicit for version in route.required()}


def tried(snapshot: Snapshot, report: Report) -> bool:
    """Tell whether a process is done with a snapshot: all it holds, or at least all that its routes name, is tried."""
    if report.held >= snapshot.generation:
        return True
    held = {str(entry.ref) for entry in snapshot.versions}
    routed = {version for route in snapshot.routes for version in route.versions()} & held
    return all(report.versions.get(version, _UNTRIED).state.tried for version in routed)


def lost_versions(served: Report, found: Report) -> str:
    """Say which versions that one process serves have failed in another; empty when none have."""
    lost = (
        f"{version} failed to load: {report.reason}"
        for version, report in sorted(found.versions.items())
        if report.state is VersionState.FAILED and served.versions.get(version, _UNTRIED).state is VersionState.READY
    )
    return "; ".join(lost)


def decide(
    wanted: Snapshot, serving: Snapshot | None, reports: Collection[Report], *, patience_over: bool
) -> tuple[Step, str]:
    """Say whether to swap to `wanted`, and the reason when it is refused.

    `reports` are those of the processes in service. `patience_over`: this is a start, and it has taken long enough.
    """
    if not reports:
        return Step.WAIT, ""
    refusal = _refusal(wanted, serving, reports)
    if refusal:
        return Step.REFUSE, refusal
    if patience_over or all(tried(wanted, report) for report in reports):
        return Step.COMMIT, ""
    return Step.WAIT, ""


def _refusal(wanted: Snapshot, serving: Snapshot | None, reports: Iterable[Report]) -> str:
    """Say which version that routes newly require has failed; a first start takes what there is."""
    if serving is None or not serving.routes:
        return ""
    for version in sorted(required(wanted) - required(serving)):
        for report in reports:
            found = report.versions.get(version)
            if found is not None and found.state is VersionState.FAILED:
                return f"generation {wanted.generation} requires {version}, which failed to load: {found.reason}"
    return ""


def readiness(
    serving: Snapshot | None,
    versions: Mapping[str, VersionReport],
    *,
    patience_over: bool,
    allow_empty: bool,
    refused: str = "",
) -> Readiness:
    """Say whether the machine is ready (DESIGN 6), with the counts of the ready line.

    `refused` is why the first snapshot is not served yet, if something is known to hinder it.
    """
    if serving is None and refused:
        return Readiness(0, 0, refused, waiting=True)
    if serving is None or serving.routes_generation == 0:
        refused = serving.refused if serving is not None else ""
        return Readiness(0, 0, refused or "no routes have been published yet", waiting=not refused)
    ready = {name for name, report in versions.items() if report.state is VersionState.READY}
    models = len({name.rpartition("@")[0] for name in ready})
    routes = sum(route.champion in ready for route in serving.routes)
    absent = sorted(required(serving) - ready)
    held = (str(entry.ref) for entry in serving.versions)
    loading = [version for version in held if not versions.get(version, _UNTRIED).state.tried]
    reason = ""
    if absent:
        reason = f"required by routes, not ready: {', '.join(absent)}"
    elif loading and not patience_over:
        reason = f"loading: {', '.join(loading)}"
    elif not routes and not allow_empty:
        reason = "no route has a champion that is ready"
    return Readiness(models, routes, reason, waiting=bool(loading) and not patience_over)
