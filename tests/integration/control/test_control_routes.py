"""routes.yaml over a running control process: two steps, refusals, every way to write a file."""

import pytest

from tests.control_plane import OTHER, FakeGateway, put_routes, write
from tests.waiting import eventually
from turnout.core.report import VersionReport, VersionState


def test_a_routes_file_takes_effect_in_two_steps(start, folder):
    """Versions are held under the old routes first; the new routes follow when they are ready."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    gateway.states["m@1"] = VersionReport(VersionState.LOADING)
    put_routes(folder, "routes:\n  m:\n    champion: 2\n    weights: {2: 9000, 1: 1000}")
    eventually(lambda: control.routes()["pending"])
    held = gateway.control.snapshot(after=gateway.snapshot.generation)
    assert "m@1" in [str(entry.ref) for entry in held.versions]
    assert held.routes == gateway.snapshot.routes
    assert held.routes_generation == gateway.snapshot.routes_generation
    gateway.follow()
    assert control.routes()["pending"]["waiting_for"] == ["m@1"]
    del gateway.states["m@1"]
    gateway.settle("m", {"m@2": 9_000, "m@1": 1_000})
    assert gateway.snapshot.routes_generation == gateway.snapshot.generation == held.generation + 1
    (route,) = [route for route in gateway.snapshot.routes if route.name == "m"]
    assert {variant.version: variant.ranges for variant in route.variants}["m@1"] == ((0, 1_000),)


def test_loaded_versions_change_routes_in_one_step(start, folder):
    """A change of weights among held versions publishes no hold of its own."""
    control = start()
    gateway = FakeGateway(control)
    put_routes(folder, "routes: {m: {champion: 2, weights: {2: 9000, 1: 1000}}}")
    gateway.settle("m", {"m@2": 9_000, "m@1": 1_000})
    before = gateway.snapshot.generation
    put_routes(folder, "routes: {m: {champion: 2, weights: {2: 0, 1: 10000}}}")
    gateway.settle("m", {"m@2": 0, "m@1": 10_000})
    assert gateway.snapshot.generation == before + 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("routes:\n  m: {champion: 1, wieghts: {}}", "routes.yaml:2: unknown key 'wieghts'; did you mean 'weights'?"),
        ("routes:\n  m:\n    champion: 9", "routes.yaml:3: route 'm': version m@9 is not known; known of m: 1, 2"),
        ("routes:\n  r:\n    champion: n@1", "routes.yaml:3: route 'r': version n@1 is not known"),
        ("routes:\n  m: {champion: 2, weights: {2: 1}}", "routes.yaml:2: route 'm': weights sum to 1 parts"),
        ("routes:\n  m: [", "routes.yaml:3: not YAML"),
        ("", "routes.yaml:1: is empty; write `routes: {}` for no routes"),
    ],
)
def test_a_faulty_file_changes_nothing_and_is_reported(start, folder, text, reason):
    """The old routes go on; log, API and a counter tell the line and the reason."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    generation = gateway.snapshot.generation
    put_routes(folder, text)
    refused = eventually(lambda: control.routes()["refused"])
    assert refused.startswith(reason)
    assert refused in control.log
    assert control.metric('turnout_control_refused_changes_total{what="routes_file"}') == 1
    assert control.snapshot(after=generation, wait_s=0.2) is None


def test_a_version_that_fails_to_load_refuses_the_file(start, folder):
    """The reason names the line, the version and why; what was held for it is let go."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    gateway.states["m@1"] = VersionReport(VersionState.FAILED, "golden: tensor 'y', row 3")
    put_routes(folder, "routes:\n  m:\n    champion: 2\n    shadows: [{version: 1}]")
    eventually(lambda: gateway.follow() is False and control.routes()["refused"])
    assert control.routes()["refused"] == ("routes.yaml:4: route 'm': m@1 cannot be served: golden: tensor 'y', row 3")
    assert "m@1" in gateway.snapshot.catalogue
    assert control.weights("m") == {"m@2": 10_000}


def test_bytes_that_changed_under_a_number_are_told_with_the_refusal(start, folder):
    """A version that failed and was mended in its folder is still the imported one: the refusal and the log say so."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    gateway.states["m@1"] = VersionReport(VersionState.FAILED, "broken")
    write(folder / "m" / "1" / "m.onnx", "mended")
    put_routes(folder, "routes: {m: {champion: 2, weights: {2: 5000, 1: 5000}}}")
    refused = eventually(lambda: gateway.follow() is False and control.routes()["refused"])
    assert refused.endswith(
        "m@1 cannot be served: broken; its bytes changed since it was imported; changed ones need a new number"
    )
    assert "m@1: its bytes changed since it was imported" in control.log


def test_versions_that_do_not_fit_together_refuse_the_file(start, folder):
    """Unequal outputs are named with the tensor at fault."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    gateway.states["m@1"] = VersionReport(VersionState.READY, signature=OTHER)
    put_routes(folder, "routes:\n  m: {champion: 2, weights: {2: 5000, 1: 5000}}")
    refused = eventually(lambda: not gateway.follow() and control.routes()["refused"])
    assert refused == (
        "routes.yaml:2: route 'm': m@1 cannot stand behind it: "
        "output 'y' is missing; output 'z' is not among the route's outputs"
    )


def test_an_in_place_write_and_a_swapped_link_are_seen(start, folder):
    """As editors write, and as Kubernetes swaps `..data`."""
    write(folder / "..1" / "routes.yaml", "routes: {m: {champion: 1}}")
    write(folder / "..2" / "routes.yaml", "routes: {m: {champion: 2}}")
    (folder / "..data").symlink_to("..1")
    (folder / "routes.yaml").symlink_to("..data/routes.yaml")
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@1": 10_000})
    (folder / "..new").symlink_to("..2")
    (folder / "..new").rename(folder / "..data")
    gateway.settle("m", {"m@2": 10_000})
    write(folder / "..2" / "routes.yaml", "routes: {m: {champion: 1, retry_safe: true}}")
    gateway.settle("m", {"m@1": 10_000})


def test_a_deleted_file_changes_nothing_and_no_routes_means_none(start, folder):
    """Deleting is reported; `routes: {}` gives models their implicit routes back."""
    put_routes(folder, "routes: {m: {champion: 1}, r: {champion: m@1}}")
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("r", {"m@1": 10_000})
    (folder / "routes.yaml").unlink()
    assert eventually(lambda: control.routes()["refused"]).startswith("routes.yaml:1: is gone")
    assert control.weights("r") == {"m@1": 10_000}
    put_routes(folder, "routes: {}")
    gateway.settle("m", {"m@2": 10_000})
    assert control.weights("r") == {}
    assert control.routes()["refused"] == ""


def test_a_half_written_file_is_refused_and_taken_when_it_is_whole(start, folder):
    """The next change is tried again."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    write(folder / "routes.yaml", "routes: {m: {champion: 1")
    eventually(lambda: "not YAML" in control.routes()["refused"])
    with (folder / "routes.yaml").open("a") as file:
        file.write("}}")
    gateway.settle("m", {"m@1": 10_000})


def test_a_routes_file_may_name_a_version_that_was_copied_since(start, folder):
    """Naming an unknown version has its model's folder read again."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    write(folder / "m" / "3" / "m.onnx", "three")
    put_routes(folder, "routes: {m: {champion: 3}}")
    gateway.settle("m", {"m@3": 10_000})
