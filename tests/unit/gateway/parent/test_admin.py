"""The machine's own port, and the table of a start."""

import io

import httpx
import pytest

from gateway.parent.admin import AdminApp
from gateway.parent.table import print_table
from turnout.core.manifest import Runtime
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import Snapshot, VersionEntry


class FakeMachine:
    """A machine in whatever state."""

    not_ready = ""

    def exposition(self):
        """Return metrics."""
        return b"# metrics\n"

    def snapshot_state(self):
        """Return the snapshot."""
        return {"generation": 7}


@pytest.fixture
async def client():
    """Return a client of the port, and the machine behind it."""
    machine = FakeMachine()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(AdminApp(machine)), base_url="http://m") as http:
        yield http, machine


async def test_live_and_ready_are_different_questions(client):
    """A machine that is not ready says why, and is alive."""
    http, machine = client
    assert (await http.get("/ready")).json() == {"ready": True}
    machine.not_ready = "draining"
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reason": "draining"})
    assert (await http.get("/live")).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
        ("/snapshot", "application/json", b'{"generation":7}'),
        ("/snapshot/", "application/json", b'{"generation":7}'),
    ],
)
async def test_pages_are_what_they_say(client, path, kind, body):
    """Each page carries its type; a slash at the end changes nothing."""
    answer = await client[0].get(path)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, kind, body)


async def test_what_is_not_there_is_refused_in_json(client):
    """Unknown paths and other methods have errors of our form."""
    http, _ = client
    assert (await http.get("/debug")).status_code == 404
    answer = await http.post("/ready")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "error" in answer.json()


def _table(snapshot, versions):
    file = io.StringIO()
    print_table(snapshot, versions, file)
    return file.getvalue()


def test_the_table_names_state_and_reason_of_each_version():
    """State is a word, not a colour; folders that could not be read are rows too."""
    entries = tuple(VersionEntry("m", number, f"sha256:{number}", Runtime.ONNX, "m.onnx", ()) for number in (1, 2, 3))
    snapshot = Snapshot("r", 1, 1, entries, problems={"n@4": "changed bytes", "odd": "model.yaml:3: unknown key"})
    versions = {
        "m@1": VersionReport(VersionState.READY),
        "m@2": VersionReport(VersionState.FAILED, "golden: output 'y' row 3"),
    }
    lines = [" ".join(line.split()) for line in _table(snapshot, versions).splitlines()]
    for expected in (
        "m 1 onnx ready",
        "m 2 onnx failed golden: output 'y' row 3",
        "m 3 onnx loading",
        "n 4 refused changed bytes",
        "odd refused model.yaml:3: unknown key",
    ):
        assert expected in lines


def test_no_models_is_said():
    """An empty folder has no table."""
    assert _table(Snapshot("r", 1, 1), {}).strip() == "no models"
