"""Gateway processes that hang, parents that are killed, and restarts under load, with real processes."""

import contextlib

import httpx

from bench.campaign import parent_kills, process_kills, rolling_restart, worker_stops
from bench.campaign.harness import Campaign
from bench.versions import write_spi
from tests.waiting import eventually


def _missed(campaign):
    return [figure for figure in campaign.figures if not figure.reached]


def test_a_rolling_restart_and_the_drain_lose_no_request(tmp_path):
    """Both doors, kept and fresh connections, open streams, clients that never retry."""
    campaign = Campaign("rolling-restart", 1)
    rolling_restart.prove(campaign, tmp_path, processes=1, restarts=1, clients=2, drain_seconds=3)
    assert not _missed(campaign)


def test_nothing_survives_the_parent(tmp_path):
    """After kill -9 all is gone: stopped processes, what a model started; STATE and ports serve again."""
    folder, tally = tmp_path / "models", parent_kills.Tally()
    models = parent_kills.write(folder, jvm=False)
    parent_kills.serving(tally, folder, tmp_path / "state", 2, models)
    assert (tally.left, tally.ports) == ([], [])


def test_nothing_survives_a_parent_that_loads(tmp_path):
    """Nor does a compiler that works for a worker which is only being started."""
    folder, tally = tmp_path / "models", parent_kills.Tally()
    write_spi(folder / "spi", 3.0)
    machine = parent_kills.Machine(folder, tmp_path / "state", parent_kills.free_ports(), 1)
    eventually(lambda: any("javac" in command for command in machine.gateway.descendants().values()), 30)
    tally.take(machine)
    assert (tally.left, tally.ports) == ([], [])


def test_kills_of_gateway_processes_cost_no_count(tmp_path):
    """No sample falls or is missing in any scrape; what is counted is what was answered, and some of what broke."""
    campaign = Campaign("process-kills", 1)
    process_kills.prove(campaign, tmp_path, processes=2, kills=2, clients=4)
    assert not _missed(campaign)


def test_kills_and_stops_of_workers_cost_no_answer_its_own(tmp_path):
    """With 40 calls in flight: nobody hangs, and every answer is that of its own rows."""
    campaign = Campaign("worker-stops", 1)
    worker_stops.prove(campaign, tmp_path, {"python": 2}, hits=2, steady_s=0.1)
    assert [figure for figure in _missed(campaign) if not figure.name.endswith("seconds")] == []


def test_a_restart_that_cannot_load_is_given_up(serve, turnout, folder):
    """The old processes serve on, and the operator reads why."""
    server = serve(folder).ready()
    (old,) = server.gateways()
    (model,) = (folder.parent / "state" / "versions").rglob("model.onnx")
    kept = model.read_bytes()
    model.chmod(0o600)
    model.write_bytes(b"broken")
    command = turnout("gateway", "restart", "--state", str(folder.parent / "state"))
    assert command.process.wait(60) == 1
    assert "replacing was given up: the process that was to take over" in command.logged("one@1 failed to load")
    assert server.gateways() == [old]
    assert server.predict("one").status_code == 200
    model.write_bytes(kept)
    again = turnout("gateway", "restart", "--state", str(folder.parent / "state"))
    assert again.process.wait(60) == 0
    assert old not in server.gateways()
    assert server.predict("one").status_code == 200
    assert server.end() == 0


BLOCKING = """
import ctypes
import os

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Blocking(RegressorMixin, BaseEstimator):
    def fit(self, x, y):
        self.n_features_in_ = 1
        return self

    def predict(self, x):
        if x[0, 0] == 4711:  # no row that a load would try
            ctypes.PyDLL(None).sleep(600)  # in C, without letting the interpreter go
        return np.zeros(len(x))
"""


def test_a_process_that_a_model_blocks_is_replaced_and_the_others_serve(serve, folder, tmp_path, monkeypatch):
    """Five seconds without a heartbeat: who was in it loses the connection, everybody else is served all the time."""
    import joblib  # noqa: PLC0415

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "blocking_model.py").write_text(BLOCKING)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    import blocking_model  # noqa: PLC0415

    (folder / "blocking").mkdir()
    joblib.dump(blocking_model.Blocking().fit(None, None), folder / "blocking" / "model.joblib")
    server = serve(folder, "--processes", "2", PYTHONPATH=str(tmp_path / "code")).ready()
    before = server.gateways()
    blocked = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [4711.0]}]}
    with httpx.Client(base_url=f"http://{server.http}", timeout=30) as caller, contextlib.suppress(httpx.HTTPError):
        answer = caller.post("/v2/models/blocking/infer", json=blocked)
        raise AssertionError(f"nobody was blocked: {answer.text}")
    killed = server.logged("killed: no heartbeat")
    assert server.predict("one").status_code == 200
    assert server.predict_grpc("one").model_version == "1"
    eventually(lambda: [one["listening"] for one in server.admin("/snapshot").json()["processes"]] == [True, True], 30)
    (gone,) = set(before) - set(server.gateways())
    assert f"gateway process {gone}:" in killed
    assert server.end() == 0
