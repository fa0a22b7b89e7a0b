"""The walk of docs/canary.md, with its own program and its own routes, against a real server."""

import subprocess
import sys

import httpx
import pytest

from bench.launch import serve
from tests.docs.blocks import blocks
from tests.waiting import eventually

PAGE = [block for block in blocks() if block.file == "docs/canary.md"]
TRAIN = next(block.text for block in PAGE if block.language == "python")
STEPS = [block.text for block in PAGE if block.language == "yaml"]
BODY = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}
WITHIN_S = 60


@pytest.fixture
def folder(tmp_path):
    """Return the FOLDER that the page's program makes, with the first routes."""
    subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, check=True, timeout=WITHIN_S)
    _route(tmp_path / "my-models", STEPS[0])
    return tmp_path / "my-models"


def _route(folder, text):
    (folder / "routes.yaml").write_text(text)


def _answered_by(server):
    answer = httpx.post(f"http://{server.http}/v2/models/fraud/infer", json=BODY, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["turnout-version"]


def _weights(server):
    route = httpx.get(f"http://{server.control}/v1/routes/fraud", timeout=30).json()
    return {variant["version"]: variant["weight"] for variant in route["variants"] if variant["weight"]}


def test_each_step_of_the_walk_takes_effect(folder, tmp_path):
    """Shadow, canary, shift, promotion and the way back do what the page says, with the export behind its cast."""
    first, shadow, canary, shift, promote, back = STEPS
    assert first == back
    with serve(folder, tmp_path / "state", "--drain-seconds", "1") as server:
        assert _answered_by(server) == "fraud@1"
        _route(folder, shadow)
        agree = 'turnout_shadow_comparisons_total{route="fraud",verdict="agree",version="fraud@2"}'
        eventually(lambda: _answered_by(server) and agree in _metrics(server), WITHIN_S)
        _route(folder, canary)
        eventually(lambda: _weights(server) == {"fraud@1": 9900, "fraud@2": 100}, WITHIN_S)
        _route(folder, shift)
        eventually(lambda: _weights(server) == {"fraud@1": 5000, "fraud@2": 5000}, WITHIN_S)
        _route(folder, promote)
        eventually(lambda: _answered_by(server) == "fraud@2", WITHIN_S)
        held = httpx.get(f"http://{server.http}/v2/models/fraud/versions/1/ready", timeout=30)
        assert held.status_code == 200
        _route(folder, back)
        eventually(lambda: _answered_by(server) == "fraud@1", WITHIN_S)


def _metrics(server):
    return httpx.get(f"http://{server.metrics}/metrics", timeout=30).text
