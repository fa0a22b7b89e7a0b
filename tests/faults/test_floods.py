"""Floods of connections, callers that dawdle, and jumps of the wall clock, on one server that may open few files."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from bench.faults import floods, moody, scenes
from bench.versions import write_onnx
from tests.waiting import eventually

FILES = 256
CONNECTIONS = 600


@pytest.fixture(scope="module")
def server(started):
    """A gateway of 256 files, half a second for headers and bodies, and a wall clock that the tests move."""
    start, folder = started
    moody.write_python(folder / floods.ROUTE)
    write_onnx(folder / scenes.OTHER, 1.0)
    place = folder.parent
    (place / "turnout.yaml").write_text(json.dumps({"limits": {"header_s": 0.5, "body_s": 0.5, "linger_s": 0.5}}))
    moved = floods.write_clock(place / "clock")
    flags = ("--config", str(place / "turnout.yaml"))
    server = start(folder, *flags, prefix=floods.few_files(FILES), **moved).ready()
    server.state, server.clock = place / "state", place / "clock"
    yield server
    assert "Traceback" not in "".join(server.log)


def test_more_connections_than_files_cost_nobody_who_came_before(server):
    """Who is connected is answered meanwhile; after it both doors take new callers, and it is the same process."""
    before = server.gateways()
    scene = scenes.Scene("flood", "", scenes.OTHER, floods.flooded(CONNECTIONS, hold_s=0.5))
    told = asyncio.run(scenes.play(server, server.state, scene))
    assert scenes.faults_of(scene, told) == [], told
    eventually(lambda: server.predict(scenes.OTHER).status_code == 200)
    assert server.predict_grpc(scenes.OTHER).model_version == "1"
    assert server.gateways() == before


@pytest.mark.parametrize("begin", [floods.HEAD, floods.BODY])
def test_callers_that_drip_are_cut(server, begin):
    """Each within the limit's time; others are answered."""
    floods.dripping(begin, callers=40)(server, server.state)
    assert server.predict(scenes.OTHER).status_code == 200


@pytest.mark.parametrize("seconds", [floods.A_DAY_S, -floods.A_DAY_S])
def test_the_wall_clock_moves_no_pause(server, seconds):
    """A worker that is killed a day later or earlier is back as soon as ever, and calls have their time."""
    try:
        floods.jumped(server.clock, seconds)(server, server.state)
        server.logged((datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:"))
        eventually(lambda: server.predict(floods.ROUTE).status_code == 200, 20)
    finally:
        floods.move(server.clock, 0)
