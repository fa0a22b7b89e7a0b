"""Scenes of `bench/faults` on real servers, in short; docs/operations/faults.md has all of them with figures."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from bench.campaign import faults
from bench.campaign.harness import RESULTS
from bench.faults import catalogue, floods, moody, scenes
from bench.versions import write_onnx
from tests.waiting import eventually

QUICK = (
    "garbage on a worker's socket",
    "worker killed amid a frame",
    "worker killed between hello and ready",
    "published snapshot truncated",
)
ANSWERS = {
    moody.EXIT: {"py": "500", "spi": "503"},
    moody.FORK: {"py": "200", "spi": "200"},
    moody.THREADS: {"py": "200", "spi": "200"},
    moody.PRINT: {"py": "200", "spi": "200"},
    moody.NAN: {"py": "500", "spi": "500"},
    moody.WRONG_SHAPE: {"py": "500"},
    moody.TOO_MANY_ROWS: {"py": "500", "spi": "500"},
    moody.RAISE: {"py": "500", "spi": "500"},
    moody.MEMORY: {"spi": "503"},
}


@pytest.fixture(scope="module")
def server(started):
    """One gateway process; its workers serve models that misbehave on demand."""
    start, folder = started
    write_onnx(folder / scenes.OTHER, 1.0)
    for name in ("py0", "py3"):
        moody.write_python(folder / name)
    moody.write_python(folder / scenes.WIDE, -1)
    moody.write_spi(folder / "spi0")
    server = start(folder).ready()
    server.folder, server.state = folder, folder.parent / "state"
    return server


def test_models_that_misbehave_harm_their_own_calls_only(server):
    """Each way in each worker: the call gets what it must, and the other models of the process answer."""
    for way, answers in ANSWERS.items():
        for runtime, outcome in answers.items():
            route = f"{runtime}0"
            assert scenes.call_with(route, way)(server, server.state) == outcome, (way, runtime)
            assert server.predict(scenes.OTHER).status_code == 200
            eventually(lambda route=route: server.predict(route).status_code == 200, 30)


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_over_soon_and_callers_saw_no_more_than_they_may(server, name):
    """The same scenes as in the campaign, with its own allowances."""
    (scene,) = (scene for scene in catalogue.scenes(server.folder) if scene.name == name)
    told = asyncio.run(scenes.play(server, server.state, scene))
    assert scenes.faults_of(scene, told) == [], told


def test_a_model_that_forks_and_ends_inside_the_gateway_process(serve, folder):
    """What it forked goes with the process, which is replaced; the log says what ran when it ended."""
    moody.write_in_process(folder / scenes.IN_PROCESS)
    server = serve(folder).ready(120)
    assert scenes.call_with(scenes.IN_PROCESS, moody.FORK)(server, folder) == "200"
    before = server.gateways()
    assert len(before) == 2
    assert scenes.call_with(scenes.IN_PROCESS, moody.EXIT_NOW)(server, folder) == scenes.CLOSED
    assert f"ended while it ran {scenes.IN_PROCESS}@1" in server.logged("ended while it ran")
    eventually(lambda: server.predict("one").status_code == 200, 60)
    assert len(server.gateways()) == 1
    assert not set(server.gateways()) & set(before)


def test_the_page_shows_what_was_measured():
    """docs/operations/faults.md is written by the campaign, and holds its figures."""
    result = msgspec.json.decode((RESULTS / "faults.json").read_bytes())
    told = msgspec.convert(result["notes"]["told"], list[scenes.Told])
    assert faults.PAGE.read_text() == faults.page(told)
    played = [*catalogue.scenes(None), *floods.scenes(Path(), faults.CONNECTIONS)]
    assert [one.name for one in told] == [scene.name for scene in played]
    assert result["reached"]
