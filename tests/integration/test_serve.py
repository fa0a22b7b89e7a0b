"""`turnout serve` from the start to the end, over real sockets."""

import json
import re
import signal
import subprocess
import sys

import httpx
import pytest

from bench.launch import ANY_PORT
from bench.versions import write_onnx, write_routes
from gateway.parent.sockets import listen
from tests.waiting import eventually
from turnout.cli import main

READY = re.compile(
    r"turnout ready http=127\.0\.0\.1:\d+ grpc=127\.0\.0\.1:\d+ metrics=127\.0\.0\.1:\d+ "
    r"control=127\.0\.0\.1:\d+ models=1 routes=1\n"
)


def _value(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"][0]


def test_a_folder_is_served_over_both_doors(shared):
    """One command, one ready line, and both doors answer; the machine's own port says so."""
    assert any(READY.fullmatch(line) for line in shared.log)
    assert _value(shared.predict("one")) == 1.0
    answer = shared.predict_grpc("one")
    assert (answer.model_name, answer.model_version) == ("one", "1")
    assert shared.get("/v2/health/ready").status_code == 200
    assert shared.admin("/live").status_code == 200
    assert shared.admin("/ready").json() == {"ready": True}


def test_the_table_stands_on_stderr_and_the_ready_line_alone_on_stdout(turnout, folder, tmp_path):
    """A script reads one line; a person reads what is served, and why something is not."""
    (folder / "broken").mkdir()
    (folder / "broken" / "model.onnx").write_bytes(b"not a model")
    command = [sys.executable, "-P", "-m", "turnout.cli.main", "serve", str(folder), "--state", str(tmp_path / "s")]
    process = subprocess.Popen(
        [*command, *ANY_PORT, "--drain-seconds", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    assert READY.fullmatch(line)
    process.send_signal(signal.SIGTERM)
    rest, log = process.communicate(timeout=30)
    assert rest == ""
    assert re.search(r"one +1 +onnx +ready", log)
    assert re.search(r"broken +1 +onnx +failed +\S+", log)
    assert process.returncode == 0


def test_the_end_is_told_in_two_lines_and_leaves_nothing_open(serve, folder):
    """An operator hears that it drains, for how long at most, and that it has stopped; no process warns of a leak."""
    server = serve(folder, "--drain-seconds", "2.5", PYTHONWARNINGS="default").ready()
    assert server.predict("one").status_code == 200
    assert server.end() == 0
    server.logged("stopped")
    told = [line.strip() for line in server.log if line.startswith(("draining", "stopped"))]
    assert told == ["draining: at most 2.5 s; a second signal ends it at once", "stopped"]
    assert [line for line in server.log if "ResourceWarning" in line] == []


def test_several_processes_share_the_ports(shared):
    """With `--processes 2` both doors answer, and the metrics are those of the machine."""
    assert len(shared.gateways()) == 2
    before = shared.metric("turnout_requests_total")
    for _ in range(20):
        assert _value(shared.predict("one")) == 1.0
        assert shared.predict_grpc("one").model_version == "1"
    assert shared.metric("turnout_requests_total") == before + 40


def test_a_weighted_version_that_is_broken_keeps_the_machine_not_ready(serve, folder):
    """What routes require must be there; the others are served meanwhile, and the line says what is missing."""
    write_onnx(folder / "two" / "1", 1.0)
    (folder / "two" / "2").mkdir()
    (folder / "two" / "2" / "model.onnx").write_bytes(b"not a model")
    write_routes(folder, {"two": {"champion": "two@1", "weights": {"two@1": 9000, "two@2": 1000}}})
    server = serve(folder)
    line = server.logged("not ready")
    assert "two@2" in line
    assert server.process.poll() is None


def test_a_first_start_with_a_refused_file_is_ready_once_it_is_mended(serve, folder):
    """Until then it says why it is not, and routes nothing by guess."""
    write_routes(folder, {"one": {"champion": "one@9"}})
    server = serve(folder)
    assert "routes.yaml:" in server.logged("turnout is up, not ready")
    write_routes(folder, {"other": {"champion": "one@1"}})
    server.ready()
    assert _value(server.predict("other")) == 1.0
    assert server.get("/v2/health/ready").status_code == 200


def test_a_first_start_serves_the_other_routes_beside_one_whose_folder_is_refused(serve, folder):
    """The machine is not ready, and the table says what is wrong with the folder."""
    (folder / "half" / "1").mkdir(parents=True)
    (folder / "half" / "1" / "model.yaml").write_text("{runtime: onnx, artifact: missing.onnx}")
    write_routes(folder, {"half": {"champion": "half@1"}, "other": {"champion": "one@1"}})
    server = serve(folder)
    assert "half@1" in server.logged("turnout is up, not ready")
    assert re.search(r"half +1 +refused +artifact 'missing.onnx' is missing", "".join(server.log))


def test_an_empty_folder_is_up_and_live_and_not_ready(serve, tmp_path):
    """Nothing to serve: the process stays up and says so; it is no place to send traffic to."""
    (tmp_path / "empty").mkdir()
    with listen("127.0.0.1", 0, "") as probe:
        port = probe.getsockname()[1]
    server = serve(tmp_path / "empty", "--metrics-port", str(port))
    server.metrics = f"127.0.0.1:{port}"
    server.logged("turnout is up, not ready")
    assert server.admin("/live").status_code == 200
    assert server.admin("/ready").status_code == 503
    assert server.end() == 0


def test_an_empty_folder_is_ready_if_that_is_allowed(serve, tmp_path):
    """`--allow-empty` makes it ready with nothing."""
    (tmp_path / "empty").mkdir()
    server = serve(tmp_path / "empty", "--allow-empty").ready()
    assert (server.models, server.routes) == (0, 0)
    assert server.get("/v2/health/ready").status_code == 200


def test_a_folder_that_does_not_exist_is_one_clear_line(turnout, tmp_path):
    """So is every other mistake of the command line that is found at the start; JSON is asked for and given."""
    server = turnout("serve", "nowhere", "--output", "json")
    assert server.process.wait(60) == 1
    assert json.loads(eventually(lambda: "".join(server.log))) == {
        "error": "cannot start: nowhere (FOLDER) is not a folder; name one that holds models"
    }


def test_a_second_server_on_the_same_state_is_refused(serve, folder):
    """STATE belongs to one parent; the line names it."""
    first = serve(folder).ready()
    second = serve(folder)
    assert second.process.wait(60) == 1
    (line,) = eventually(lambda: second.log)
    assert f"is in use by process {first.process.pid}" in line
    assert _value(first.predict("one")) == 1.0


def test_routes_change_while_serving(serve, folder):
    """A new routes.yaml takes effect without a restart, and answers say the version that gave them."""
    for number in (1, 2):
        write_onnx(folder / "two" / str(number), float(number))
    write_routes(folder, {"two": {"champion": "two@1"}})
    server = serve(folder).ready()
    assert _value(server.predict("two")) == 1.0
    write_routes(folder, {"two": {"champion": "two@2"}})
    eventually(lambda: _value(server.predict("two")) == 2.0, 30)
    assert server.predict("two").headers["turnout-version"] == "two@2"


def test_predict_prints_a_table_or_one_json_document(shared, tmp_path, capsys):
    """Rows of a CSV file go to a route; what the server refuses is said as it says it."""
    (tmp_path / "rows.csv").write_text("x\n1.5\n2.5\n")
    asked = ("-f", str(tmp_path / "rows.csv"), "--url", f"http://{shared.http}")
    assert _run("predict", "one", *asked) == 0
    assert re.search(r"row +value.*0 +1.*1 +1", capsys.readouterr().out, re.DOTALL)
    assert _run("predict", "one@1", *asked, "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["data"] == [1.0, 1.0]
    assert _run("predict", "nobody", *asked) == 1
    assert "nobody" in capsys.readouterr().err


def _run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main.run(arguments)
    return caught.value.code


def test_the_metrics_port_answers_what_it_has_and_nothing_else(shared):
    """Unknown paths are 404, other methods 405, and the snapshot's generation is shown."""
    assert shared.admin("/secrets").status_code == 404
    assert httpx.post(f"http://{shared.metrics}/ready").status_code == 405
    shown = shared.admin("/snapshot").json()
    assert shown["generation"] >= 1
    assert shown["versions"] == {"one@1": "ready"}


def test_a_model_is_loaded_and_unloaded_by_its_callers(serve, folder):
    """A folder that is new is read on demand, over either door's repository, and can be dropped again."""
    server = serve(folder).ready()
    assert server.predict("late").status_code == 404
    write_onnx(folder / "late", 5.0)
    assert httpx.post(f"http://{server.http}/v2/repository/models/late/load", timeout=60).status_code == 200
    assert _value(server.predict("late")) == 5.0
    assert httpx.post(f"http://{server.http}/v2/repository/models/late/unload", timeout=60).status_code == 200
    assert server.predict("late").status_code == 404
    refused = httpx.post(f"http://{server.http}/v2/repository/models/nobody/load", timeout=60)
    assert refused.status_code == 404
