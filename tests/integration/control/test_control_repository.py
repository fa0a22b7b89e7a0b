"""Loading and unloading models on demand."""

import threading

import httpx

from tests.control_plane import FakeGateway, put_routes, write
from tests.waiting import eventually
from turnout.core.report import VersionReport, VersionState


def test_repository_load_brings_a_new_version_and_waits_for_it(start, folder):
    """The answer comes when live gateways serve the newest version, and not before."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    write(folder / "m" / "3" / "m.onnx", "three")
    answers: list[httpx.Response] = []
    loading = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{control.http.base_url}/v1/repository/models/m/load", timeout=30))
    )
    loading.start()
    eventually(lambda: gateway.follow() or "m@3" in [str(entry.ref) for entry in gateway.snapshot.versions])
    gateway.settle("m", {"m@3": 10_000})
    loading.join(20)
    assert (answers[0].status_code, answers[0].json()) == (200, {})
    (route,) = [route for route in gateway.snapshot.routes if route.name == "m"]
    assert route.previous == "m@2"
    assert "m@2" in [str(entry.ref) for entry in gateway.snapshot.versions]


def test_repository_unload_drops_hold_and_route_until_a_load(start, folder):
    """An unloaded model stays in the catalogue."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("flat", {"flat@1": 10_000})
    for action, weights in (("unload", {}), ("load", {"flat@1": 10_000})):
        url = f"{control.http.base_url}/v1/repository/models/flat/{action}"
        answers: list[httpx.Response] = []
        calling = threading.Thread(target=lambda url=url, into=answers: into.append(httpx.post(url, timeout=30)))
        calling.start()
        gateway.settle("flat", weights)
        calling.join(20)
        assert answers[0].status_code == 200
        assert ("flat@1" in gateway.snapshot.catalogue) is (action == "unload")


def test_repository_calls_that_are_refused(start, folder):
    """Explicit routes 409, unknown models 404, broken folders 400, each with its code; and all are counted."""
    put_routes(folder, "routes: {m: {champion: 1}, r: {champion: flat@1}}")
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("r", {"flat@1": 10_000})
    write(folder / "broken" / "model.yaml", "runtime: onnx")
    for path, status, code, text in (
        ("m/load", 409, "conflict", "route 'm' is managed by routes.yaml"),
        ("m/unload", 409, "conflict", "model 'm' is behind route 'm', which routes.yaml manages"),
        ("flat/unload", 409, "conflict", "model 'flat' is behind route 'r'"),
        ("nope/load", 404, "not_found", "unknown model: 'nope'"),
        ("nope/unload", 404, "not_found", "unknown model: 'nope'"),
        ("broken/load", 400, "invalid_input", "broken: no artifact"),
    ):
        answer = control.http.post(f"/v1/repository/models/{path}")
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert text in answer.json()["error"]
    assert control.metric('turnout_control_refused_changes_total{what="load"}') == 3
    assert control.metric('turnout_control_refused_changes_total{what="unload"}') == 3
    assert control.metric("turnout_control_import_problems") == 1


def test_repository_load_of_a_version_that_fails(start, folder):
    """The caller gets the gateway's reason; the old version goes on."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("flat", {"flat@1": 10_000})
    write(folder / "flat" / "flat.onnx", "changed")
    gateway.states["flat@2"] = VersionReport(VersionState.FAILED, "not a model")
    answers: list[httpx.Response] = []
    url = f"{control.http.base_url}/v1/repository/models/flat/load"
    loading = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30)))
    loading.start()
    eventually(lambda: not gateway.follow() and answers)
    loading.join(20)
    assert answers[0].status_code == 400
    assert answers[0].json()["error"] == "flat@2 cannot be served: not a model"
    assert control.weights("flat") == {"flat@1": 10_000}


def test_without_a_folder_nothing_can_be_loaded(start):
    """403 with the reason; control still publishes an empty picture."""
    control = start(folder=None)
    assert control.snapshot().versions == ()
    answer = control.http.post("/v1/repository/models/m/load")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_version_copied_slowly_is_never_taken_half(start, folder):
    """A load during the copy waits for its end and has every byte; one that never ends is refused in time."""
    control = start()
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 10_000})
    (folder / "m" / "3").mkdir()
    copy = (folder / "m" / "3" / "m.onnx").open("w")
    copy.write("first half, ")
    copy.flush()
    answers: list[httpx.Response] = []
    url = f"{control.http.base_url}/v1/repository/models/m/load"
    loading = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30)))
    loading.start()
    gateway.follow(wait_s=1)
    copy.write("second half")
    copy.close()
    gateway.settle("m", {"m@3": 10_000})
    loading.join(20)
    assert answers[0].status_code == 200
    (entry,) = [entry for entry in gateway.snapshot.versions if str(entry.ref) == "m@3"]
    assert entry.files[0].size == len("first half, second half")
    (folder / "m" / "4").mkdir()
    with (folder / "m" / "4" / "m.onnx").open("w"):
        answer = control.http.post("/v1/repository/models/m/load")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "m@4: still being written: m.onnx" in answer.json()["error"]
