"""What the control API answers: long polls, reports, errors, metrics."""

import threading

import pytest

from tests.control_plane import ControlProcess, FakeGateway, put_routes
from tests.waiting import eventually
from turnout.control.config import ControlConfig
from turnout.core.report import VersionReport, VersionState


def test_the_long_poll_waits_and_answers_any_other_generation(start):
    """Nothing newer is 304 after the wait; a gateway that is ahead is shown what there is."""
    control = start()
    assert control.snapshot(after=0).generation == 1
    assert control.snapshot(after=1, wait_s=0.1) is None
    assert control.snapshot(after=99).generation == 1
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(control.snapshot(after=1, wait_s=20)))
    waiting.start()
    FakeGateway(control).follow()
    waiting.join(20)
    assert answers[0].generation == 2


def test_every_live_gateway_must_be_ready(start, folder):
    """A second gateway that still loads holds the change back; once it is silent for long enough it does not."""
    control = start(gateway_live_s=2.0)
    one, two = FakeGateway(control, "one"), FakeGateway(control, "two")
    two.states["m@1"] = VersionReport(VersionState.LOADING)
    one.settle("m", {"m@2": 10_000})
    two.follow()
    put_routes(folder, "routes: {m: {champion: 1}}")
    eventually(lambda: control.routes()["pending"])
    two.follow(wait_s=5)
    one.follow(wait_s=5)
    assert control.weights("m") == {"m@2": 10_000}
    assert control.metric("turnout_control_live_gateways") == 2
    one.settle("m", {"m@1": 10_000})


def test_a_gateway_of_another_registry_is_shown_and_not_waited_for(start, folder):
    """It does not follow us, so it neither blocks nor readies anything."""
    control = start()
    gateway = FakeGateway(control)
    stranger = FakeGateway(control, "stranger")
    stranger.report({}, registry_id="other", refused="control is registry x, this gateway follows other")
    gateway.settle("m", {"m@2": 10_000})
    assert control.routes()["gateways"]["stranger"]["refused"].startswith("control is registry x")
    assert "gateway stranger does not follow: control is registry x" in control.log


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Return a control process without a FOLDER, for tests that change nothing."""
    control = ControlProcess(ControlConfig(state=str(tmp_path_factory.mktemp("state")), port=0))
    yield control
    control.kill()


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "/v1/nothing", b"", 404, "not_found"),
        ("POST", "/v1/routes", b"", 405, "method_not_allowed"),
        ("GET", "/v1/routes/nope", b"", 404, "not_found"),
        ("GET", "/v1/snapshot?after=x", b"", 400, "invalid_input"),
        ("GET", "/v1/snapshot?after=0&wait_s=-1", b"", 400, "invalid_input"),
        ("POST", "/v1/gateways/g/report", b"{", 400, "invalid_input"),
        ("POST", "/v1/gateways/g/report", b"{}", 400, "invalid_input"),
        ("POST", "/v1/gateways/g/report", b'"' + b"x" * (8 << 20) + b'"', 413, "too_large"),
    ],
)
def test_errors_have_one_form(empty, method, path, content, status, code):
    """A text and a code, with the status of the one table."""
    answer = empty.http.request(method, path, content=content)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert answer.json()["error"]


def test_it_tells_that_it_lives_and_shows_its_metrics(start):
    """Health and metrics answer at once."""
    control = start()
    control.snapshot()
    assert control.http.get("/v1/health/live").json() == {"live": True}
    assert control.http.get("/metrics").headers["content-type"].startswith("text/plain")
    assert control.metric("turnout_control_generation") == 1
