"""Kills and stops of every process of a machine, under load: what is promised when something dies."""

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bench.versions import write_onnx, write_python, write_routes
from tests.waiting import eventually

BODY = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [0.0]}]}


class Load:
    """Callers over keep-alive connections, and what became of their requests."""

    def __init__(self, address, callers=4):
        self._url = f"http://{address}/v2/models/one/infer"
        self._done = threading.Event()
        self.statuses = []
        self.failures = []
        self._pool = ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call) for _ in range(callers)]

    def _call(self):
        with httpx.Client(timeout=10) as client:
            while not self._done.is_set():
                try:
                    self.statuses.append(client.post(self._url, json=BODY).status_code)
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    if self._done.wait(0.01):
                        return

    def stop(self):
        """End the load and wait for its callers."""
        self._done.set()
        self._pool.shutdown()


@contextlib.contextmanager
def _load(server):
    load = Load(server.http)
    try:
        eventually(lambda: len(load.statuses) > 20)
        yield load
    finally:
        load.stop()


def test_sigterm_under_load_loses_no_answer_and_exits_0(serve, folder):
    """Every request that was taken is answered, the machine says early that it is leaving, and nothing stays."""
    server = serve(folder).ready()
    with _load(server) as load:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.admin("/ready").status_code == 503)
        answered = len(load.statuses)
        eventually(lambda: len(load.statuses) > answered or load.failures)
        assert server.ended() == 0
    assert set(load.statuses) == {200}
    # Once the port is closed new connections are refused; a request that was sent is never left without an answer.
    assert {type(failure) for failure in load.failures} <= {httpx.ConnectError}


def test_a_leaving_machine_asks_its_callers_to_go(serve, folder):
    """Answers during the drain carry `connection: close` and the door is not ready, but it still answers."""
    server = serve(folder, "--drain-seconds", "5").ready()
    with httpx.Client(base_url=f"http://{server.http}") as kept:
        assert kept.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.admin("/ready").status_code == 503)
        answer = eventually(lambda: _closing(kept.post("/v2/models/one/infer", json=BODY)))
        assert answer.status_code == 200
        assert server.get("/v2/health/ready").status_code == 503
    assert server.ended() == 0


def _closing(answer):
    return answer if answer.headers.get("connection") == "close" else None


def test_a_second_signal_forces_the_end(serve, folder):
    """Who does not want to wait for the drain need not; the status says that it was cut short."""
    server = serve(folder, "--drain-seconds", "60").ready()
    with httpx.Client(base_url=f"http://{server.http}") as kept:
        kept.get("/v2/health/live")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.admin("/ready").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.ended(10) == 1
    server.logged("stopped before the drain was over")


def test_a_process_that_hangs_is_killed_and_replaced(serve, folder):
    """Five seconds without a heartbeat are enough; the log says why it was killed."""
    server = serve(folder).ready()
    (hung,) = server.gateways()
    os.kill(hung, signal.SIGSTOP)
    assert "no heartbeat" in server.logged(f"gateway process {hung}: killed", 20)
    eventually(lambda: server.predict("one").status_code == 200, 30)
    assert hung not in server.gateways()
    assert server.end() == 0


def test_a_killed_worker_is_one_line_in_the_log(serve, folder, tmp_path):
    """An operator reads what died, how, what it cost and when it is back; then it answers again."""
    write_python(folder / "py", 3.0)
    code = folder / "py" / "constant_model.py"
    begun, held = tmp_path / "begun", tmp_path / "held"
    lines = (
        "exists = __import__('os').path.exists",
        f"open({str(begun)!r}, 'w').close() if exists({str(held)!r}) else None",
        f"while exists({str(held)!r}): pass",
        "return",
    )
    code.write_text(code.read_text().replace("return", "\n        ".join(lines)))
    server = serve(folder).ready()
    held.touch()
    (worker,) = server.children("python_worker")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.predict, "py")
        eventually(begun.exists)
        os.kill(worker, signal.SIGKILL)
        assert call.result().status_code == 503
    line = "worker of py@1 died: killed by signal 9 (SIGKILL); 1 calls lost; restarting in 0.5 s"
    assert line in server.logged("worker of py@1 died")
    held.unlink()
    eventually(lambda: server.predict("py").status_code == 200, 30)
    assert len([line for line in server.log if "worker of py@1 died" in line]) == 1
    assert server.end() == 0


def test_the_next_parent_waits_for_the_last_orphan(serve, folder):
    """A start in the very moment of the parent's death succeeds, on the same ports."""
    server = serve(folder).ready()
    ports = ("--http-port", server.http.rpartition(":")[2], "--grpc-port", server.grpc.rpartition(":")[2])
    server.process.kill()
    server.process.wait(5)
    again = serve(folder, *ports).ready()
    assert again.predict_grpc("one").model_version == "1"
    assert again.end() == 0


def test_the_gateway_serves_on_while_control_is_restarted(serve, folder):
    """Nobody's request fails when control is killed; afterwards routes change again."""
    for number in (1, 2):
        write_onnx(folder / "two" / str(number), float(number))
    write_routes(folder, {"two": {"champion": "two@1"}})
    server = serve(folder).ready()
    with _load(server) as load:
        (control,) = server.children("turnout.control.main")
        os.kill(control, signal.SIGKILL)
        (again,) = eventually(lambda: [pid for pid in server.children("turnout.control.main") if pid != control], 30)
        assert again != control
        write_routes(folder, {"two": {"champion": "two@2"}})
        eventually(lambda: server.predict("two").headers["turnout-version"] == "two@2", 30)
    assert set(load.statuses) == {200}
    assert load.failures == []
    assert server.end() == 0


def _standalone(turnout, control_url, state):
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    return turnout("gateway", "--control", control_url, "--state", str(state), "--drain-seconds", "2", *ports)


def test_a_gateway_starts_from_its_last_good_snapshot(serve, turnout, folder, tmp_path):
    """With control down a gateway that has served before serves again, bytes and all."""
    server = serve(folder).ready()
    gateway = _standalone(turnout, f"http://{server.control}", tmp_path / "other").ready()
    assert gateway.predict("one").status_code == 200
    assert gateway.end() == 0
    assert server.end() == 0
    again = _standalone(turnout, f"http://{server.control}", tmp_path / "other").ready()
    assert again.predict("one").status_code == 200
    assert "starting from the last good snapshot" in "".join(again.log)
    assert again.end() == 0


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data.replace(b"one", b"two")])
def test_a_torn_snapshot_file_is_not_served(serve, turnout, folder, tmp_path, damage):
    """A truncated or altered file is refused by name; the gateway waits for control instead."""
    server = serve(folder).ready()
    gateway = _standalone(turnout, f"http://{server.control}", tmp_path / "other").ready()
    assert gateway.end() == 0
    assert server.end() == 0
    kept = tmp_path / "other" / "snapshot.json"
    kept.write_bytes(damage(kept.read_bytes()))
    again = _standalone(turnout, f"http://{server.control}", tmp_path / "other")
    assert "is not used" in again.logged("snapshot.json")
    assert again.process.poll() is None
    assert again.end() == 0


def test_another_registry_is_refused_until_an_operator_adopts_it(serve, turnout, folder, tmp_path):
    """A gateway follows one registry; `turnout gateway adopt` is the operator's word, and it serves on meanwhile."""
    write_onnx(tmp_path / "others" / "two", 2.0)
    first = serve(folder).ready()
    gateway = _standalone(turnout, f"http://{first.control}", tmp_path / "mine").ready()
    assert gateway.end() == 0
    other = serve(tmp_path / "others", "--state", str(tmp_path / "state-of-the-other")).ready()
    gateway = _standalone(turnout, f"http://{other.control}", tmp_path / "mine").ready()
    assert "the snapshot is refused" in gateway.logged("refused")
    assert gateway.predict("one").status_code == 200
    adopt = turnout("gateway", "adopt", "--state", str(tmp_path / "mine"))
    assert adopt.process.wait(60) == 0
    eventually(lambda: gateway.predict("two").status_code == 200, 30)
    assert gateway.predict("one").status_code == 404


@pytest.mark.parametrize("stage", ["turnout.control.main", "gateway.main"])
def test_sigterm_in_the_middle_of_a_start_is_obeyed(serve, folder, stage):
    """Whatever has been started by then is taken down, and the exit status is 0."""
    server = serve(folder)
    eventually(lambda: server.children(stage), 30)
    assert server.end() == 0
