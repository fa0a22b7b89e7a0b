"""The control process from its start to its end, alone, with gateways that the tests play."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.control_plane import FakeGateway, put_routes, write
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import blob_path


def test_a_first_start_holds_first_and_routes_when_all_is_tried(start, folder):
    """Generation 1 holds the newest of each model without routes; routes follow when a gateway has tried all."""
    control = start(fresh=True)
    first = control.snapshot()
    assert (first.generation, first.routes_generation, first.routes) == (1, 0, ())
    assert [str(entry.ref) for entry in first.versions] == ["flat@1", "m@2"]
    assert first.catalogue == ("m@1",)
    assert all(entry.trusted for entry in first.versions)
    gateway = FakeGateway(control)
    gateway.states["flat@1"] = VersionReport(VersionState.FAILED, "broken")
    gateway.follow()
    second = control.snapshot(after=1)
    assert (second.generation, second.routes_generation) == (2, 2)
    assert {route.name: route.champion for route in second.routes} == {"flat": "flat@1", "m": "m@2"}


def test_bytes_can_be_had_over_http_and_from_the_local_folder(start, folder):
    """Every file of a version is answered by its digest, and lies where the header says."""
    control = start()
    snapshot = control.snapshot()
    answer = control.http.get("/v1/snapshot", params={"after": 0})
    for entry in snapshot.versions:
        for file in entry.files:
            bytes_ = control.http.get(f"/v1/blobs/{file.sha256}").content
            assert len(bytes_) == file.size
            assert (Path(answer.headers["turnout-blobs"]) / blob_path(file.sha256)).read_bytes() == bytes_
    for unknown in ("0" * 64, "..%2Fregistry.db", "x"):
        missing = control.http.get(f"/v1/blobs/{unknown}")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_routes_survive_a_restart_of_control_alone(start, folder):
    """Generation, ranges and previous champion go on; nothing new is published when nothing changed."""
    text = "routes: {m: {champion: 2, weights: {2: 9000, 1: 1000}, sticky: {header: x-user}}}"
    put_routes(folder, text)
    control = start(fresh=True)
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 9_000, "m@1": 1_000})
    put_routes(folder, text.replace("9000", "9500").replace("1000", "500"))
    gateway.settle("m", {"m@2": 9_500, "m@1": 500})
    before = gateway.snapshot
    assert control.stop(signal.SIGKILL) == -signal.SIGKILL
    control = start()
    assert control.snapshot(wait_s=20) == before


def test_a_fresh_start_waits_for_versions_and_keeps_buckets(start, folder):
    """When the whole machine starts, routes come after the loads, with the ranges of before."""
    put_routes(folder, "routes: {m: {champion: 2, weights: {2: 9000, 1: 1000}}}")
    control = start(fresh=True)
    gateway = FakeGateway(control)
    gateway.settle("m", {"m@2": 9_000, "m@1": 1_000})
    put_routes(folder, "routes: {m: {champion: 1, weights: {2: 4000, 1: 6000}}}")
    gateway.settle("m", {"m@1": 6_000, "m@2": 4_000})
    before = gateway.snapshot
    assert control.stop() == 0
    write(folder / "flat" / "flat.onnx", "changed")
    again = start(fresh=True)
    first = again.snapshot(wait_s=20)
    assert (first.generation, first.routes) == (before.generation + 1, ())
    gateway = FakeGateway(again)
    gateway.settle("flat", {"flat@2": 10_000})
    assert [route for route in gateway.snapshot.routes if route.name == "m"] == [
        route for route in before.routes if route.name == "m"
    ]


def test_another_folder_over_the_same_state_brings_its_own_routes(start, folder, tmp_path):
    """Explicit routes of one FOLDER do not haunt another."""
    put_routes(folder, "routes: {r: {champion: m@1}}")
    control = start(fresh=True)
    gateway = FakeGateway(control)
    gateway.settle("r", {"m@1": 10_000})
    control.stop()
    write(tmp_path / "others" / "k" / "k.onnx", "k")
    control = start(fresh=True, folder=str(tmp_path / "others"))
    gateway = FakeGateway(control)
    gateway.settle("k", {"k@1": 10_000})
    assert [route.name for route in gateway.snapshot.routes] == ["k"]


def test_changed_bytes_under_a_number_are_refused_by_name(start, folder):
    """The version goes on with its imported bytes; the folder is a named problem."""
    control = start()
    before = {str(entry.ref): entry.digest for entry in control.snapshot().versions}
    control.stop()
    write(folder / "m" / "2" / "m.onnx", "changed")
    again = start()
    snapshot = again.snapshot(wait_s=20)
    assert {str(entry.ref): entry.digest for entry in snapshot.versions} == before
    assert snapshot.problems["m/2"].startswith("its bytes changed after m@2 was imported")
    assert "m/2: its bytes changed" in again.log


def test_untrusted_folders_are_marked(start):
    """With `untrusted`, no version's code may run."""
    assert not any(entry.trusted for entry in start(untrusted=True).snapshot().versions)


@pytest.mark.parametrize("how", [None, signal.SIGTERM])
def test_it_ends_cleanly(start, how):
    """At the end of its stdin and on SIGTERM, long polls under way or not; nothing is ever printed on stdout."""
    control = start()
    control.snapshot()
    with socket.create_connection(("127.0.0.1", control.port), timeout=20) as poll:
        poll.sendall(b"GET /v1/snapshot?after=1&wait_s=25 HTTP/1.1\r\nhost: control\r\n\r\n")
        assert control.http.get("/v1/health/live").status_code == 200  # by now the poll has been read too
        os.kill(control.process.pid, signal.SIGINT)
        assert control.stop(how) == 0
        assert poll.recv(4096).startswith(b"HTTP/1.1 304 ")


def test_a_port_that_is_taken_is_one_clear_line(start):
    """It exits 1 and says which port."""
    first = start()
    second = start(port=first.port, state=str(first.log_path.parent / "second"))
    assert second.process.wait(20) == 1
    assert f"control cannot start: port {first.port} (--control-port) on 127.0.0.1 is taken" in second.log
