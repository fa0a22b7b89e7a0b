"""The machine of publications, step by step."""

import msgspec
import pytest

from turnout.control.publish.change import CHANGED, MAX_GATEWAYS, decide, is_loaded, load_failure
from turnout.control.publish.routes_file import DeclaredRoute
from turnout.control.publish.state import (
    Compared,
    Declared,
    Dropped,
    Imported,
    Refusal,
    Reported,
    State,
    Tick,
    Unloaded,
)
from turnout.core.manifest import Runtime
from turnout.core.report import GatewayReport, VersionReport, VersionState
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import Shadow, VersionEntry
from turnout.core.tensor import Datatype

FITS = Signature((), (TensorSpec("y", Datatype.FP32, (-1,)),))
MISFITS = Signature((), (TensorSpec("z", Datatype.FP32, (-1,)),))
VERSIONS = {
    f"m@{number}": VersionEntry("m", number, f"sha256:{number}", Runtime.ONNX, "m.onnx", ()) for number in (1, 2, 3)
}


class Machine:
    """The machine with a clock that the test turns."""

    def __init__(self, present=(1,)) -> None:
        self.now_s = 50.0
        self.state = State("r", trusted=True)
        self.do(Imported(VERSIONS, {"m": tuple(present)}, {}))

    def do(self, event, after_s: float = 0.0):
        """Take an event after some seconds and return the step."""
        self.now_s += after_s
        step = decide(self.state, event, self.now_s)
        self.state = step.state
        return step

    def report(self, gateway="g", *, far: int | None = None, after_s: float = 0.0, signatures=None, **states):
        """Report everything held as ready but what is said: `v1="failed"`."""
        held = {str(entry.ref) for entry in self.state.snapshot.versions}
        at = self.state.generation if far is None else far
        versions = {}
        for ref in held:
            state = VersionState(states.get(f"v{ref[2:]}", "ready"))
            signature = (signatures or {}).get(ref, FITS) if state is VersionState.READY else None
            versions[ref] = VersionReport(state, "broken", signature)
        return self.do(Reported(GatewayReport(gateway, "r", at, at, versions)), after_s)

    def begun(self) -> "Machine":
        """Let the first routes be published."""
        self.report()
        return self

    @property
    def held(self) -> list[str]:
        """The versions that are published as held."""
        return [str(entry.ref) for entry in self.state.snapshot.versions]

    def weights(self, route="m") -> dict[str, int]:
        """Return the published weights of a route."""
        found = self.state.route(route)
        return {variant.version: variant.weight for variant in found.variants} if found else {}


def file(*routes: DeclaredRoute) -> Declared:
    """Return a routes file."""
    return Declared(routes, "routes.yaml")


def to(champion: int, name="m", shadows=(), **weights: int) -> DeclaredRoute:
    """Return a route; weights by number: `v1=500`."""
    named = {f"m@{key[1:]}": weight for key, weight in weights.items()} or {f"m@{champion}": 10_000}
    shadowing = tuple(Shadow(f"m@{number}") for number in shadows)
    return DeclaredRoute(name, f"m@{champion}", named, shadowing, line=2, lines=dict.fromkeys(named, 3))


def test_a_start_without_any_gateway_publishes_routes_after_30_s():
    """Nobody is waited for for ever."""
    machine = Machine()
    assert machine.do(Tick(), 29.9).publication is None
    assert machine.do(Tick(), 0.2).publication.routes[0].champion == "m@1"


def test_a_start_waits_for_versions_that_still_load():
    """Failed ones are tried; loading ones are not, until 30 s are gone."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1, v1=10_000, v2=0)))
    assert machine.report(v1="failed", v2="loading").publication is None
    assert machine.report(v1="failed", v2="loading", after_s=31).publication is not None
    assert machine.weights() == {"m@1": 10_000, "m@2": 0}


def test_a_start_with_a_known_misfit_refuses_the_file():
    """Nothing is routed by guess: versions are held, and the snapshot says why there are no routes."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1, v1=5_000, v2=5_000)))
    step = machine.report(signatures={"m@2": MISFITS})
    assert str(step.refusal).startswith("routes.yaml:3: route 'm': m@2 cannot stand behind it")
    machine.report(after_s=31)
    assert (machine.state.snapshot.routes_generation, machine.weights()) == (0, {})
    assert machine.state.snapshot.refused == str(step.refusal)


@pytest.mark.parametrize("unusable", [file(to(9)), Dropped(Refusal("routes.yaml", 1, "is not UTF-8"))])
def test_a_first_start_with_a_refused_file_waits_until_it_is_mended(unusable):
    """Routes that nobody wrote do not take its place, however long it takes."""
    machine = Machine(present=(1, 2))
    assert machine.do(unusable).refusal is not None
    machine.report(after_s=31)
    assert machine.report(after_s=31).publication is None
    assert machine.state.snapshot.refused.startswith("routes.yaml:")
    machine.do(file(to(1, v1=9_000, v2=1_000)))
    assert machine.report().accepted == "routes.yaml"
    assert machine.weights() == {"m@1": 9_000, "m@2": 1_000}
    assert machine.state.snapshot.refused == ""


def test_a_later_start_with_a_refused_file_goes_on_with_the_routes_of_before():
    """They are the old ones."""
    machine = Machine().begun()
    again = Machine()
    again.state = msgspec.structs.replace(again.state, before=machine.state.before)
    assert again.do(file(to(9))).refusal is not None
    again.report()
    assert again.weights() == {"m@1": 10_000}


def test_a_first_start_serves_the_other_routes_of_a_file_that_names_a_refused_folder():
    """Its route is published and has no version; an edit of the others may leave it as it is."""
    machine = Machine()
    machine.do(Imported(VERSIONS, {"m": (1, 2)}, {"n@1": "artifact 'x.onnx' is missing", "k": "is no folder"}))
    broken = [DeclaredRoute(name, f"{name}@1", {f"{name}@1": 10_000}) for name in "kn"]
    machine.do(file(to(1), *broken))
    machine.report()
    assert [route.name for route in machine.state.snapshot.routes] == ["k", "m", "n"]
    assert machine.held == ["m@1", "m@2"]
    assert machine.do(file(to(2), *broken)).accepted == "routes.yaml"
    step = machine.do(file(to(2), *broken, DeclaredRoute("j", "n@2", {"n@2": 10_000})))
    assert str(step.refusal) == "routes.yaml:1: route 'j': version n@2 is not known"
    step = machine.do(file(to(2), DeclaredRoute("j", "k@2", {"k@2": 10_000})))
    assert str(step.refusal) == "routes.yaml:1: route 'j': version k@2 is refused: is no folder"


def test_a_misfit_that_shows_after_the_start_is_taken_out():
    """A slow version's answers are known late; its share goes back to the champion."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1, v1=5_000, v2=5_000)))
    machine.report(v2="loading")
    machine.report(v2="loading", after_s=31)
    assert machine.weights() == {"m@1": 5_000, "m@2": 5_000}
    step = machine.report(signatures={"m@2": MISFITS})
    assert [fault.version for fault in step.taken_out] == ["m@2"]
    assert machine.weights() == {"m@1": 10_000}


def test_hold_is_left_out_when_it_changes_nothing():
    """Among held versions one publication is enough."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1, v1=9_000, v2=1_000)))
    machine.begun()
    generation = machine.state.generation
    step = machine.do(file(to(1, v1=8_000, v2=2_000)))
    assert step.accepted == "routes.yaml"
    assert step.publication.routes_generation == generation + 1 == step.publication.generation


def test_a_file_that_says_the_same_is_accepted_without_a_publication():
    """Touching a file changes nothing, and is no refusal."""
    machine = Machine().begun()
    machine.do(file(to(1)))
    step = machine.do(file(to(1)))
    assert (step.publication, step.refusal, step.accepted) == (None, None, "routes.yaml")


def test_a_report_from_before_an_unload_does_not_count():
    """A version that was let go and is held again must be reported anew."""
    machine = Machine(present=(1,)).begun()
    machine.do(file(to(1, v1=9_000, v2=1_000)))
    machine.report()
    machine.do(file(to(1)))
    assert machine.held == ["m@1"]
    stale = machine.state.generation
    machine.do(file(to(1, v1=9_000, v2=1_000)))
    assert machine.report(far=stale).publication is None
    assert machine.report().publication is not None


def test_a_version_that_does_not_become_ready_is_refused_in_the_end():
    """With how long was waited, and that nobody reports if nobody does."""
    machine = Machine().begun()
    machine.do(file(to(2)))
    assert machine.report(v2="loading", after_s=299).refusal is None
    step = machine.report(v2="loading", after_s=2)
    assert str(step.refusal) == "routes.yaml:3: route 'm': m@2 is not ready after 300 s"
    assert machine.held == ["m@1"]
    machine.do(file(to(2)))
    assert str(machine.do(Tick(), 301).refusal).endswith("m@2 is not ready after 300 s: no gateway reports")


def test_a_newer_file_takes_the_place_of_one_that_waits():
    """Readable or not: what is no longer written down does not take effect."""
    machine = Machine().begun()
    machine.do(file(to(2)))
    machine.do(Dropped(Refusal("routes.yaml", 1, "is not UTF-8")))
    machine.report()
    assert machine.weights() == {"m@1": 10_000}
    machine.do(file(to(2)))
    machine.do(file(to(3)))
    machine.report()
    assert machine.weights() == {"m@3": 10_000}


def test_a_lost_canary_can_always_be_taken_out():
    """Only versions that get more must be ready."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1, v1=9_000, v2=1_000, shadows=[3])))
    machine.begun()
    machine.report(v2="lost", v3="failed")
    machine.do(file(to(1, v1=10_000, v2=0, shadows=[3])))
    assert machine.weights() == {"m@1": 10_000, "m@2": 0}


def test_an_implicit_route_moves_when_its_newest_version_is_ready():
    """Until then, and when it fails, the version of before goes on; it stays held as one step back."""
    machine = Machine().begun()
    machine.do(Imported(VERSIONS, {"m": (1, 2)}, {}))
    machine.report(v2="failed")
    assert machine.weights() == {"m@1": 10_000}
    assert load_failure(machine.state, "m", machine.now_s) == "m@2 cannot be served: broken"
    machine.report()
    assert machine.weights() == {"m@2": 10_000}
    assert machine.held == ["m@1", "m@2"]
    assert not is_loaded(machine.state, "m", machine.now_s)
    machine.report()
    assert is_loaded(machine.state, "m", machine.now_s)


def test_a_file_that_lets_go_of_a_route_gives_it_back_to_its_model():
    """The implicit route starts from the champion of before where the newest version is not ready."""
    machine = Machine(present=(1, 2))
    machine.do(file(to(1)))
    machine.begun()
    machine.report(v2="failed")
    machine.do(file())
    assert machine.weights() == {"m@1": 10_000}
    assert not machine.state.route("m").explicit
    machine.report()
    assert machine.weights() == {"m@2": 10_000}


def test_unloading_drops_hold_and_route():
    """Until the model is loaded again."""
    machine = Machine().begun()
    machine.do(Unloaded("m"))
    assert (machine.held, machine.state.snapshot.routes, machine.state.snapshot.catalogue) == (
        [],
        (),
        ("m@1", "m@2", "m@3"),
    )
    machine.do(Imported(VERSIONS, {"m": (1,)}, {}, frozenset({"m"})))
    machine.report()
    assert machine.weights() == {"m@1": 10_000}


def test_problems_and_trust_are_published():
    """What cannot be served is told with every snapshot, and whether code may run with every version."""
    machine = Machine().begun()
    step = machine.do(Imported(VERSIONS, {"m": (1,)}, {"k": "no artifact"}))
    assert step.publication.problems == {"k": "no artifact"}
    assert step.publication.routes_generation < step.publication.generation
    assert all(entry.trusted for entry in step.publication.versions)


def test_silent_gateways_are_forgotten_and_their_number_is_bounded():
    """Names come from callers: nobody fills the memory with them."""
    machine = Machine().begun()
    for number in range(MAX_GATEWAYS + 5):
        machine.report(f"g{number}")
    assert len(machine.state.gateways) == MAX_GATEWAYS
    machine.report("late", after_s=20)
    assert list(machine.state.gateways) == ["late"]


@pytest.mark.parametrize("state", ["loading", "failed", "lost"])
def test_one_gateway_that_is_not_ready_holds_everybody_back(state):
    """A change waits for every live gateway; a failure on one refuses it and names the gateway."""
    machine = Machine()
    machine.report("one")
    machine.report("two")
    machine.do(file(to(2)))
    machine.report("two", v2=state)
    step = machine.report("one")
    assert machine.weights() == {"m@1": 10_000}
    if state == "failed":
        assert machine.state.pending is None
    else:
        assert step.refusal is None
        assert machine.state.pending is not None


@pytest.mark.parametrize("named", [True, False])
def test_a_refused_version_whose_bytes_changed_is_explained(named):
    """Who mended a version in place hears why that does not help; others hear nothing of it."""
    machine = Machine(present=(1, 2)).begun()
    machine.do(Compared(frozenset({"m@1" if named else "m@3"})))
    machine.do(Declared((DeclaredRoute("m", "m@2", {"m@2": 9_000, "m@1": 1_000}),), "routes.yaml"))
    refusal = str(machine.report(v1="failed").refusal)
    told = "m@1 cannot be served: broken"
    assert refusal.endswith(f"{told}; {CHANGED}" if named else told)
