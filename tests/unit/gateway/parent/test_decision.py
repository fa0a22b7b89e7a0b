"""What the parent decides from its processes' reports."""

import msgspec

from gateway.parent.decision import Step, decide, merge, readiness
from gateway.parent.messages import Report
from turnout.core.manifest import Runtime
from turnout.core.report import VersionReport, VersionState
from turnout.core.signature import Signature
from turnout.core.snapshot import Route, Snapshot, Variant, VersionEntry

READY = VersionReport(VersionState.READY, signature=Signature())
LOADING = VersionReport(VersionState.LOADING)
FAILED = VersionReport(VersionState.FAILED, "no such file")
LOST = VersionReport(VersionState.LOST, "its process ended", crashed_calls=3)


def _entry(ref):
    model, _, number = ref.partition("@")
    return VersionEntry(model, int(number), f"sha256:{ref}", Runtime.ONNX, "model.onnx", ())


def _route(champion, *others, explicit=True):
    variants = (Variant(champion, 9_000, ((0, 9_000),)), *(Variant(other, 1_000, ()) for other in others))
    return Route(champion.partition("@")[0], champion, variants, explicit)


def _snapshot(generation, versions, routes=()):
    routes_generation = generation if routes else 0
    return Snapshot("r", generation, routes_generation, tuple(map(_entry, versions)), tuple(routes))


def test_a_version_is_ready_only_when_it_is_ready_in_each_process():
    """The machine's state of a version is the worst of its processes'; one that does not know it is still loading."""
    merged = merge([{"m@1": READY, "m@2": READY}, {"m@1": READY}])
    assert {name: report.state for name, report in merged.items()} == {
        "m@1": VersionState.READY,
        "m@2": VersionState.LOADING,
    }
    assert merge([{"m@1": READY}, {"m@1": FAILED}])["m@1"].reason == "no such file"


def test_crashed_calls_add_up_over_processes():
    """Calls that were in flight when a worker was lost are those of all processes."""
    merged = merge([{"m@1": LOST}, {"m@1": LOST}])["m@1"]
    assert (merged.state, merged.crashed_calls) == (VersionState.LOST, 6)


def test_a_snapshot_waits_until_all_it_holds_is_tried():
    """While a version that routes name is loading in one process, nobody swaps."""
    wanted = _snapshot(2, ["m@1"], [_route("m@1")])
    reports = [Report(1, 2, {"m@1": READY}), Report(1, 1, {"m@1": LOADING})]
    assert decide(wanted, None, reports, patience_over=False)[0] is Step.WAIT
    assert decide(wanted, None, [reports[0], reports[0]], patience_over=False)[0] is Step.COMMIT


def test_held_versions_that_no_route_names_hold_nothing_up():
    """A hold of a slow version is committed at once when the routes' own versions are tried."""
    wanted = _snapshot(3, ["m@1", "m@2"], [_route("m@1")])
    reports = [Report(2, 2, {"m@1": READY, "m@2": LOADING})]
    assert decide(wanted, None, reports, patience_over=False)[0] is Step.COMMIT


def test_a_start_waits_no_longer_than_its_patience():
    """At a start that has taken too long, a version that is still loading is served around."""
    wanted = _snapshot(2, ["m@1"], [_route("m@1")])
    reports = [Report(1, 1, {"m@1": LOADING})]
    assert decide(wanted, None, reports, patience_over=True)[0] is Step.COMMIT


def test_routes_that_newly_require_a_failed_version_are_refused():
    """The old snapshot goes on, and the reason names the version."""
    serving = _snapshot(2, ["m@1"], [_route("m@1")])
    wanted = _snapshot(4, ["m@1", "m@2"], [_route("m@1", "m@2")])
    reports = [Report(3, 4, {"m@1": READY, "m@2": FAILED})]
    step, reason = decide(wanted, serving, reports, patience_over=False)
    assert step is Step.REFUSE
    assert reason == "generation 4 requires m@2, which failed to load: no such file"


def test_a_version_that_was_required_and_broken_before_blocks_no_change():
    """Routes that go on requiring a failed version can still be changed otherwise."""
    serving = _snapshot(2, ["m@1", "n@1"], [_route("m@1"), _route("n@1")])
    wanted = _snapshot(3, ["m@1", "n@1"], [_route("m@1")])
    reports = [Report(2, 3, {"m@1": FAILED, "n@1": READY})]
    assert decide(wanted, serving, reports, patience_over=False)[0] is Step.COMMIT


def test_a_first_start_takes_what_there_is():
    """Before any routes are served a failed version refuses nothing: the others are served."""
    serving = _snapshot(1, ["m@1", "n@1"])
    wanted = _snapshot(2, ["m@1", "n@1"], [_route("m@1"), _route("n@1")])
    reports = [Report(1, 1, {"m@1": FAILED, "n@1": READY})]
    assert decide(wanted, serving, reports, patience_over=False)[0] is Step.COMMIT


def test_without_processes_nothing_is_decided():
    """A machine whose processes are all being replaced waits."""
    assert decide(_snapshot(2, []), None, [], patience_over=True)[0] is Step.WAIT


def _ready_reason(serving, versions, *, patience_over=False, allow_empty=False):
    return readiness(serving, versions, patience_over=patience_over, allow_empty=allow_empty).reason


def test_readiness_needs_published_routes():
    """A machine that only holds versions so far is not ready, and something is under way."""
    now = readiness(_snapshot(1, ["m@1"]), {"m@1": READY}, patience_over=True, allow_empty=True)
    assert (now.reason, now.waiting) == ("no routes have been published yet", True)


def test_readiness_tells_why_a_first_start_has_no_routes():
    """The routes file was refused: nothing is under way that would make the machine ready."""
    holding = msgspec.structs.replace(_snapshot(1, ["m@1"]), refused="routes.yaml:2: not YAML")
    now = readiness(holding, {"m@1": READY}, patience_over=True, allow_empty=True)
    assert (now.reason, now.waiting) == ("routes.yaml:2: not YAML", False)


def test_readiness_needs_every_required_version():
    """A champion or weighted version of an explicit route that is not ready keeps the machine not ready, for good."""
    serving = _snapshot(2, ["m@1", "m@2"], [_route("m@1", "m@2")])
    reason = _ready_reason(serving, {"m@1": READY, "m@2": FAILED}, patience_over=True)
    assert reason == "required by routes, not ready: m@2"


def test_readiness_does_not_need_versions_of_implicit_routes():
    """An implicit route whose version failed keeps nobody waiting; the counts are of what is ready."""
    serving = _snapshot(2, ["m@1", "n@1"], [_route("m@1", explicit=False), _route("n@1", explicit=False)])
    now = readiness(serving, {"m@1": READY, "n@1": FAILED}, patience_over=False, allow_empty=False)
    assert (now.models, now.routes, now.reason) == (1, 1, "")


def test_readiness_waits_for_optional_versions_only_so_long():
    """Every other version is tried once, or the start's patience is over."""
    serving = _snapshot(2, ["m@1", "n@1"], [_route("m@1"), _route("n@1", explicit=False)])
    versions = {"m@1": READY, "n@1": LOADING}
    assert _ready_reason(serving, versions) == "loading: n@1"
    assert _ready_reason(serving, versions, patience_over=True) == ""


def test_a_machine_without_models_is_ready_only_if_that_is_allowed():
    """Nothing to serve is not ready, unless the operator said so."""
    empty = Snapshot("r", 1, 1)
    assert _ready_reason(empty, {}) == "no route has a champion that is ready"
    assert _ready_reason(empty, {}, allow_empty=True) == ""


def test_a_failure_of_its_own_goes_before_a_quarantine_that_may_be_over():
    """After a repository load one process may still repeat why the version was out, when another knows better."""
    before = VersionReport(VersionState.FAILED, "quarantined: before", quarantined=True)
    own = VersionReport(VersionState.FAILED, "golden is off")
    assert merge([{"m@1": before}, {"m@1": own}])["m@1"] == own
    assert merge([{"m@1": before}, {"m@1": VersionReport(VersionState.READY)}])["m@1"] == before
