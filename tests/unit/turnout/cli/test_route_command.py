"""`turnout route` over answers of the control API."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import msgspec
import pytest

from turnout.cli import main
from turnout.control.api.answers import ErrorAnswer, PendingAnswer, RouteAnswer, RoutesAnswer
from turnout.core.snapshot import Fallback, Match, Shadow, Sticky, Variant

FRAUD = RouteAnswer(
    name="fraud",
    champion="fraud@2",
    variants=(Variant("fraud@2", 9_500, ((500, 10_000),)), Variant("fraud@1", 500, ((0, 500),))),
    explicit=True,
    previous="fraud@1",
    shadows=(Shadow("fraud@3", 5_000),),
    sticky=Sticky("fraud", header="x-user"),
    matches=(Match({"x-cohort": "beta"}, "fraud@3"),),
    fallback=(Fallback("previous"), Fallback("value", {"label": 0})),
    deadline_ms=200,
    states={"fraud@1": "ready", "fraud@2": "ready", "fraud@3": "loading"},
)
ROUTES = RoutesAnswer(
    "registry",
    7,
    5,
    (FRAUD,),
    PendingAnswer("routes.yaml", 12.3, ("fraud@4",)),
    "routes.yaml:3: not YAML",
    {"broken": "no artifact"},
    {},
)
ANSWERS = {
    "/v1/routes": (200, ROUTES),
    "/v1/routes/fraud": (200, FRAUD),
    "/v1/routes/nope": (404, ErrorAnswer("route 'nope' is not found", "not_found")),
    "/v1/routes/door": (404, {"error": "there is nothing at /v1/routes/door"}),
}


class Control(BaseHTTPRequestHandler):
    """Answers what the test has prepared."""

    def do_GET(self) -> None:
        """Answer a path of the table."""
        status, answer = ANSWERS[self.path]
        self.send_response(status)
        if self.path == "/v1/routes/door":
            self.send_header("turnout-request-id", "r")
        self.end_headers()
        self.wfile.write(msgspec.json.encode(answer))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return where the prepared answers are had."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Control) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a runner of the command at width 100: its status, and what it printed."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str):
        with pytest.raises(SystemExit) as caught:
            main.run(["route", *arguments])
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run


def test_show_prints_weights_ranges_and_states(run, url):
    """An operator sees who gets which buckets, and what else hangs on the route."""
    code, out, _ = run("show", "fraud", "--url", url)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "route fraud, champion fraud@2, routes.yaml" in lines
    assert "fraud@2 95 % 500-9999 ready" in lines
    assert "fraud@1 5 % 0-499 ready" in lines
    assert "previous champion fraud@1, ready" in lines
    assert "shadow fraud@3 of 50 %, loading" in lines
    assert "match x-cohort: beta to fraud@3, loading" in lines
    assert "sticky by header x-user, salt 'fraud'" in lines
    assert "fallback previous, then value" in lines
    assert "deadline 200 ms, not retry safe" in lines


def test_list_prints_what_waits_and_what_was_refused(run, url):
    """One line a route, then everything that is not as somebody wanted it."""
    code, out, _ = run("list", "--url", url)
    assert code == 0
    assert "fraud@2 95 %, fraud@1 5 %" in " ".join(out.split())
    assert "generation 7, routes of generation 5\n" in out
    assert "routes.yaml waits for fraud@4 since 12 s\n" in out
    assert "refused: routes.yaml:3: not YAML\n" in out
    assert "cannot be served: broken: no artifact\n" in out


@pytest.mark.parametrize(("arguments", "path"), [(["list"], "/v1/routes"), (["show", "fraud"], "/v1/routes/fraud")])
def test_json_is_the_apis_own_document(run, url, arguments, path):
    """With `--output json` nothing is added or left out."""
    code, out, _ = run(*arguments, "--url", url, "--output", "json")
    assert code == 0
    assert json.loads(out) == json.loads(msgspec.json.encode(ANSWERS[path][1]))


def test_an_unknown_route_and_a_control_out_of_reach(run, url):
    """The first is refused with 1, the second is status 3."""
    code, _, err = run("show", "nope", "--url", url)
    assert (code, err) == (1, "turnout: route 'nope' is not found\n")
    code, _, err = run("list", "--url", "http://127.0.0.1:1")
    assert code == 3
    assert err.startswith("turnout: control at http://127.0.0.1:1 is out of reach: ")


def test_the_http_door_is_told_from_control(run, url):
    """Its answers carry a request id, control's do not: the message says which port was meant."""
    code, _, err = run("show", "door", "--url", url)
    assert code == 1
    assert err == f"turnout: {url} is the HTTP door; route commands ask control's port, 8090 unless it was changed\n"


@pytest.mark.parametrize(
    ("command", "variable", "port"),
    [(("predict",), "TURNOUT_PREDICT_URL", "8080"), (("route", "list"), "TURNOUT_URL", "8090")],
)
def test_each_command_says_which_port_it_asks(capsys, command, variable, port):
    """Help names the port and the variable; the two doors share neither."""
    with pytest.raises(SystemExit):
        main.run([*command, "--help"])
    said = capsys.readouterr().out
    assert variable in said
    assert port in said
