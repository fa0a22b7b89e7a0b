"""The machine of publications under random files, reports, imports and clocks."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.control.publish.change import decide
from turnout.control.publish.compile import named, signature_faults
from turnout.control.publish.ranges import size
from turnout.control.publish.routes_file import DeclaredRoute
from turnout.control.publish.state import Declared, Dropped, Imported, Refusal, Reported, State, Tick, Unloaded
from turnout.core.manifest import Runtime
from turnout.core.report import GatewayReport, VersionReport, VersionState
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import BUCKETS, Route, Shadow, Snapshot, VersionEntry
from turnout.core.tensor import Datatype

X = TensorSpec("x", Datatype.FP32, (-1,))
Y = TensorSpec("y", Datatype.FP32, (-1,))
REFS = [f"{model}@{number}" for model in ("a", "b") for number in (1, 2, 3)]
ENTRIES = {ref: VersionEntry(ref[0], int(ref[2:]), f"sha256:{ref}", Runtime.ONNX, "m.onnx", ()) for ref in REFS}
# b@3 answers something else, so it can stand behind no route of the others.
SIGNATURES = {ref: Signature((X,), (X,) if ref == "b@3" else (Y,)) for ref in REFS}

states = st.sampled_from([VersionState.READY, VersionState.READY, VersionState.LOADING, VersionState.FAILED])
numbers = st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def declarations(draw) -> DeclaredRoute:
    """Draw a route of a file."""
    champion = draw(st.sampled_from(REFS))
    others = draw(st.lists(st.sampled_from([ref for ref in REFS if ref != champion]), max_size=2, unique=True))
    share = draw(st.sampled_from([0, 500, 5_000]))
    weights = dict.fromkeys(others, share) | {champion: BUCKETS - share * len(others)}
    shadows = draw(st.lists(st.sampled_from([ref for ref in REFS if ref != champion]), max_size=1))
    return DeclaredRoute(
        draw(st.sampled_from(["a", "r"])), champion, weights, shadows=tuple(Shadow(ref) for ref in shadows)
    )


files = st.lists(declarations(), max_size=2, unique_by=lambda route: route.name).map(tuple)
reports = st.tuples(
    st.sampled_from(["g1", "g2"]), st.fixed_dictionaries(dict.fromkeys(REFS, states)), st.integers(0, 2)
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("file"), files),
        st.tuples(st.just("report"), reports),
        st.tuples(st.just("report"), reports),
        st.tuples(st.just("good report"), st.sampled_from(["g1", "g2"])),
        st.tuples(st.just("import"), st.dictionaries(st.sampled_from(["a", "b"]), numbers)),
        st.tuples(st.just("unload"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("broken file"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 5.0, 20.0, 400.0])),
    ),
    max_size=25,
)


class World:
    """Control's machine with what the test knows about gateways by itself."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.state = State("registry", versions=ENTRIES, present={"a": (1,), "b": (2,)})
        self.reports: dict[str, tuple[GatewayReport, float]] = {}

    def event(self, kind: str, value):
        """Turn an action into an event."""
        if kind == "file":
            return Declared(value, "routes.yaml")
        if kind == "import":
            return Imported(ENTRIES, value, {})
        if kind == "unload":
            return Unloaded(value)
        if kind == "broken file":
            return Dropped(Refusal("routes.yaml", 1, "broken"))
        if kind == "wait":
            self.now_s += value
            return Tick()
        name, found, lag = (value, dict.fromkeys(REFS, VersionState.READY), 0) if kind == "good report" else value
        return Reported(self.report(name, found, lag))

    def report(self, name: str, found, lag: int) -> GatewayReport:
        """Return a gateway's report, some generations behind."""
        held = {str(entry.ref) for entry in self.state.snapshot.versions} if self.state.snapshot else set()
        versions = {
            ref: VersionReport(state, signature=SIGNATURES[ref] if state is VersionState.READY else None)
            for ref, state in found.items()
            if ref in held
        }
        at = max(0, self.state.generation - lag)
        report = GatewayReport(name, "registry", at, at, versions)
        self.reports[name] = (report, self.now_s)
        return report

    def ready_everywhere(self, version: str) -> bool:
        """Tell from the test's own records whether every gateway that reported within 15 s has the version ready."""
        live = [report for report, at_s in self.reports.values() if self.now_s - at_s < 15]
        return bool(live) and all(
            version in report.versions and report.versions[version].state is VersionState.READY for report in live
        )


def held(snapshot: Snapshot | None) -> set[str]:
    """Return the versions that a snapshot holds."""
    return {str(entry.ref) for entry in snapshot.versions} if snapshot else set()


def weights(route: Route | None) -> dict[str, int]:
    """Return a route's weights."""
    return {variant.version: variant.weight for variant in route.variants} if route else {}


def check_publication(world: World, before: State, step) -> None:
    """Assert what must hold of every publication."""
    snapshot, last = step.publication, before.snapshot
    assert snapshot.generation == before.generation + 1
    for route in snapshot.routes:
        assert route.versions() <= held(snapshot)
        assert sum(size(variant.ranges) for variant in route.variants) == BUCKETS
        assert all(size(variant.ranges) == variant.weight for variant in route.variants)
    if step.state.starting:
        assert snapshot.routes == ()
        assert snapshot.routes_generation == 0
        return
    if before.starting:
        assert snapshot.routes_generation == snapshot.generation
        return
    assert (snapshot.routes_generation == snapshot.generation) is (snapshot.routes != last.routes)
    if not step.taken_out:
        check_two_steps(world, last, snapshot)


def check_two_steps(world: World, last: Snapshot, snapshot: Snapshot) -> None:
    """Assert that whatever a changed route newly names, or gives more to, was held before and is ready everywhere."""
    old = {route.name: route for route in last.routes}
    for route in snapshot.routes:
        was = old.get(route.name)
        if route == was:
            continue
        known = named(was) if was else set()
        grown = {version for version, weight in weights(route).items() if weight > weights(was).get(version, 0)}
        if not route.explicit and was is not None and was.explicit and route.champion == was.champion:
            grown.discard(route.champion)  # the file let go of the route: its champion keeps what it can
        for version in (named(route) - known) | grown:
            assert version in held(last)
            assert world.ready_everywhere(version), version


@settings(max_examples=150, deadline=None)
@given(actions)
def test_whatever_happens_old_routes_go_on_until_new_ones_are_ready(history):
    """Generations rise by one, routes name what is held, and new versions are ready on every live gateway first."""
    world = World()
    for kind, value in history:
        before, event = world.state, world.event(kind, value)
        step = decide(before, event, world.now_s)
        if step.publication is not None:
            check_publication(world, before, step)
        if step.refusal is not None and not before.starting and not step.taken_out:
            explicit = [route for route in before.snapshot.routes if route.explicit]
            assert [route for route in step.state.snapshot.routes if route.explicit] == explicit
            assert step.state.pending is None
        assert step.state.generation >= before.generation
        world.state = step.state
        again = decide(world.state, Tick(), world.now_s)
        if again.refusal is not None:  # what was published just now shows a waiting file to be wrong
            world.state = again.state
            again = decide(world.state, Tick(), world.now_s)
        assert again.publication is None
        assert again.state == world.state


@settings(max_examples=100, deadline=None)
@given(actions)
def test_what_is_known_not_to_fit_never_stands_behind_a_route(history):
    """As soon as signatures are told, no published route mixes versions that answer differently."""
    world = World()
    for kind, value in history:
        world.state = decide(world.state, world.event(kind, value), world.now_s).state
        routes = world.state.snapshot.routes if world.state.snapshot else ()
        faults = [fault for route in routes for fault in signature_faults(route, world.state.signatures)]
        assert [fault for fault in faults if fault.version] == []


@settings(max_examples=60, deadline=None)
@given(actions, files)
def test_with_every_gateway_well_a_file_takes_effect_or_is_refused(history, file):
    """From wherever the machine is, a file is published whole, or refused, or loses late misfits of a first start."""
    world = World()
    for kind, value in history:
        world.state = decide(world.state, world.event(kind, value), world.now_s).state
    world.now_s += 20.0
    step = decide(world.state, Declared(file, "routes.yaml"), world.now_s)
    refused = step.refusal is not None
    for _ in range(8):
        world.state = step.state
        report = world.event("good report", "g1")
        step = decide(world.state, report, world.now_s)
        refused = refused or step.refusal is not None or step.taken_out != ()
        world.now_s += 5.0
    assert step.state.pending is None
    assert step.state.starting == (step.state.is_first and step.state.refused is not None)
    published = {route.name: weights(route) for route in step.state.snapshot.routes if route.explicit}
    if not refused:
        assert published == {route.name: route.weights for route in file}


def test_states_are_values():
    """The machine's state is frozen, so that a step never changes the one before it."""
    assert State.__struct_config__.frozen
    assert msgspec.structs.replace(State("r"), generation=2).generation == 2
