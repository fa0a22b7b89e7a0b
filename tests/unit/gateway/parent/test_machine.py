"""The machine: what it does with a snapshot, and what it tells."""

import asyncio

import pytest

from adapters.interface import LoadFailed
from gateway.parent import last_good
from gateway.parent.control_client import Offer
from gateway.parent.fetch import FetchFailed
from gateway.parent.fleet import Fleet
from gateway.parent.machine import Machine
from gateway.parent.messages import Report
from gateway.parent.slots import Slots
from gateway.parent.state_folder import StateFolder
from tests.waiting import eventually_async
from turnout.core.manifest import Runtime
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import Route, Snapshot, Variant, VersionEntry, encode


class FakeFiles:
    """Has the bytes of every version but `broken`."""

    broken = "broken"

    def __init__(self):
        self.fetched = []
        self.kept = []

    async def fetch(self, entry, blobs):
        """Fetch."""
        self.fetched.append(str(entry.ref))
        if entry.model == self.broken:
            raise FetchFailed("the bytes of model.onnx are missing in the repository")
        return f"/versions/{entry.ref}"

    def sweep(self, held):
        """Sweep."""
        self.kept = [str(entry.ref) for entry in held]


class FakeWorkers:
    """Starts nothing; `out` are quarantined until they are pardoned."""

    released: tuple = ()

    def __init__(self):
        self.out = {}
        self.failure = ""
        self.sockets = {}

    async def hold(self, entries):
        """Hold."""
        return dict(self.sockets)

    def quarantined(self, model):
        """Tell."""
        return {version: reason for version, reason in self.out.items() if version.startswith(f"{model}@")}

    async def pardon(self, version):
        """Pardon."""
        del self.out[version]
        if self.failure:
            raise LoadFailed(self.failure)
        return "/sockets/new"

    def release(self, held):
        """Release."""
        self.released = tuple(str(entry.ref) for entry in held)

    def watch(self, reports):
        """Watch."""


class FakeProcess:
    """A process that is warm at once."""

    pid, slot, started_s, listening, says_ready, cannot = 1, 0, 0.0, True, True, None

    def __init__(self):
        self.report = None
        self.prepared = None
        self.committed = 0

    @property
    def in_service(self):
        """As the real one."""
        return self.committed > 0

    def send(self, message):
        """Obey."""
        if hasattr(message, "snapshot_path"):
            self.prepared = message
        elif hasattr(message, "generation"):
            self.committed = message.generation


@pytest.fixture
def parts(tmp_path):
    """Return a machine, its fleet of one process, and what its start said."""
    state = StateFolder(tmp_path / "state")
    fleet = Fleet(1, Slots(state.metrics), None, lambda: None, None, 5.0)
    fleet.processes.append(FakeProcess())
    said = []
    machine = Machine("gw-1", state, FakeFiles(), FakeWorkers(), fleet, allow_empty=False, on_start=said.append)
    yield machine, fleet, said, state
    state.close()


def _offer(generation, *models):
    entries = tuple(VersionEntry(model, 1, f"sha256:{model}", Runtime.ONNX, "m.onnx", ()) for model in models)
    routes = tuple(Route(m, f"{m}@1", (Variant(f"{m}@1", 10_000, ((0, 10_000),)),), explicit=False) for m in models)
    snapshot = Snapshot("r", generation, generation, entries, routes)
    return Offer(snapshot, encode(snapshot), None)


def _report(fleet, generation, **states):
    fleet.processes[0].report = Report(generation, generation, {f"{m}@1": VersionReport(s) for m, s in states.items()})


async def _update(machine):
    """Have the machine look, do what that asks for, and look again."""
    machine.update()
    await machine.tidy()
    machine.update()


async def test_a_snapshot_becomes_the_last_good_one_only_when_it_is_served(parts):
    """Until all processes are warm the file on the disk stays what it was."""
    machine, fleet, _, state = parts
    await machine.take(_offer(1, "a"))
    machine.update()
    assert last_good.read(state.last_good) is None
    _report(fleet, 1, a=VersionState.READY)
    machine.update()
    await machine.tidy()
    assert last_good.read(state.last_good)[0].generation == 1
    assert machine.serving.generation == 1


async def test_missing_bytes_are_a_problem_of_their_version_alone(parts):
    """The others are prepared; the processes are told why one cannot be."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a", "broken"))
    prepared = fleet.processes[0].prepared
    assert prepared.directories == {"a@1": "/versions/a@1"}
    assert prepared.problems == {"broken@1": "the bytes of model.onnx are missing in the repository"}


async def test_the_same_snapshot_again_is_no_work(parts):
    """After an outage control offers what the machine has."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    first = fleet.processes[0].prepared
    await machine.take(_offer(1, "a"))
    assert fleet.processes[0].prepared is first
    assert machine._files.fetched == ["a@1"]


async def test_the_same_snapshot_again_brings_bytes_that_were_missing(parts):
    """Control that is back is asked once more for what could not be had."""
    machine, fleet, _, _ = parts
    assert not await machine.take(_offer(1, "a", "broken"))
    told = fleet.processes[0].prepared
    assert not await machine.take(_offer(1, "a", "broken"))
    assert fleet.processes[0].prepared is told
    machine._files.broken = ""
    assert await machine.take(_offer(1, "a", "broken"))
    assert fleet.processes[0].prepared.problems == {}


async def test_what_left_the_snapshot_leaves_the_machine(parts):
    """Files and workers of versions that are no longer held go with the swap, and old snapshot files too."""
    machine, fleet, _, state = parts
    for generation, model in ((1, "a"), (2, "b")):
        await machine.take(_offer(generation, model))
        _report(fleet, generation, **{model: VersionState.READY})
        machine.update()
        await machine.tidy()
    assert machine._files.kept == ["b@1"]
    assert machine._workers.released == ("b@1",)
    assert [path.name for path in state.snapshots.iterdir()] == ["2.json"]


async def test_a_swap_leaves_alone_what_is_being_brought_for_the_next_snapshot(parts, monkeypatch):
    """Control may publish again while processes load: the older swap must not sweep away what the newer one needs."""
    machine, fleet, _, state = parts
    await machine.take(_offer(1, "a"))
    fetch = machine._files.fetch

    async def fetch_during_the_swap(entry, blobs):
        _report(fleet, 1, a=VersionState.READY)
        machine.update()
        await machine.tidy()
        return await fetch(entry, blobs)

    monkeypatch.setattr(machine._files, "fetch", fetch_during_the_swap)
    (state.snapshots / "2.json").write_bytes(b"")
    await machine.take(_offer(2, "b"))
    assert machine.serving.generation == 1
    assert machine._files.kept == []
    await machine.tidy()
    assert machine._files.kept == ["a@1", "b@1"]
    assert machine._workers.released == ("a@1", "b@1")
    assert (state.snapshots / "2.json").exists()


async def test_being_ready_is_said_once_and_latches(parts):
    """The loss of the only model later does not take the machine out; leaving does."""
    machine, fleet, said, _ = parts
    assert machine.not_ready == "no routes have been published yet"
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    await _update(machine)
    assert machine.not_ready == ""
    _report(fleet, 1, a=VersionState.LOST)
    machine.update()
    assert machine.not_ready == ""
    assert [(now.models, now.routes, now.reason) for now in said] == [(1, 1, "")]
    machine.leave()
    assert machine.not_ready == "draining"


async def test_a_start_that_fails_is_said_once_too(parts):
    """When everything has been tried and nothing is ready, the operator hears why, and hears when it is ready yet."""
    machine, fleet, said, _ = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.FAILED)
    await _update(machine)
    machine.update()
    assert [now.reason for now in said] == ["no route has a champion that is ready"]
    _report(fleet, 1, a=VersionState.READY)
    machine.update()
    assert [now.reason for now in said][1:] == [""]


async def test_a_machine_whose_processes_are_all_gone_is_not_ready(parts):
    """Nobody takes requests: a load balancer must know."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    machine.update()
    fleet.processes.clear()
    assert machine.not_ready == "no gateway process takes requests"


async def test_the_report_names_what_is_served_held_and_refused(parts):
    """Control learns the state of each version, and why a newer snapshot is not obeyed."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    machine.update()
    machine.refuse("control is registry other")
    report = machine.report()
    assert (report.gateway, report.registry_id, report.generation, report.held) == ("gw-1", "r", 1, 1)
    assert report.versions["a@1"].state is VersionState.READY
    assert report.refused == "control is registry other"


async def test_the_ready_line_waits_until_the_doors_say_the_same(parts):
    """Whoever reads the line and asks a door gets one answer."""
    machine, fleet, said, _ = parts
    fleet.processes[0].says_ready = False
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    await _update(machine)
    assert said == []
    fleet.processes[0].says_ready = True
    machine.update()
    assert [now.reason for now in said] == [""]


async def test_nothing_is_announced_before_the_last_good_snapshot_is_kept(parts):
    """Whoever hears that the machine is ready may kill it, and it starts again without control."""
    machine, fleet, said, state = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    machine.update()
    machine.update()
    assert said == []
    await _update(machine)
    assert [now.reason for now in said] == [""]
    assert last_good.read(state.last_good)[0].generation == 1


async def test_bytes_stay_while_the_newer_snapshot_cannot_be_kept(parts, caplog):
    """A restart would begin with the older one, so what that holds is needed until the disk takes the newer one."""
    machine, fleet, _, state = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.READY)
    await _update(machine)
    in_the_way = state.last_good.with_name(f".{state.last_good.name}.new")
    in_the_way.mkdir()
    await machine.take(_offer(2, "b"))
    _report(fleet, 2, b=VersionState.READY)
    await _update(machine)
    assert "generation 2 cannot be kept as the last good one" in caplog.text
    assert (machine._files.kept, last_good.read(state.last_good)[0].generation) == (["a@1"], 1)
    in_the_way.rmdir()
    await machine.tidy()
    assert (machine._files.kept, last_good.read(state.last_good)[0].generation) == (["b@1"], 2)


QUARANTINED = VersionReport(VersionState.FAILED, "quarantined: the process died 3 times", quarantined=True)


async def test_a_retry_that_ends_a_process_again_is_answered(parts):
    """The other processes go on to report why it was taken out before; that is not waited for."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    for _ in range(3):
        fleet._suspects.died({"a@1": "sha256:a"})
    fleet.processes[0].report = Report(1, 1, {"a@1": QUARANTINED})
    retrying = asyncio.create_task(machine.retry("a", fleet.processes[0]))
    await eventually_async(lambda: fleet.processes[0].prepared.alone == ["a@1"])
    fleet._suspects.died({"a@1": "sha256:a"})
    assert "a@1 cannot be served: quarantined: the process died 4 times" in await asyncio.wait_for(retrying, 10)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (VersionReport(VersionState.READY), ""),
        (VersionReport(VersionState.FAILED, "it died again"), "a@1 cannot be served: it died again"),
    ],
)
async def test_a_retry_waits_for_its_outcome(parts, outcome, told):
    """Neither what was reported before nor that the load goes on is an answer."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    for _ in range(3):
        fleet._suspects.died({"a@1": "sha256:a"})
    fleet.processes[0].report = Report(1, 1, {"a@1": QUARANTINED})
    retrying = asyncio.create_task(machine.retry("a", fleet.processes[0]))
    await eventually_async(lambda: fleet.processes[0].prepared.alone == ["a@1"])
    _report(fleet, 1, a=VersionState.LOADING)
    await asyncio.sleep(0)
    assert not retrying.done()
    fleet.processes[0].report = Report(1, 1, {"a@1": outcome})
    assert await asyncio.wait_for(retrying, 10) == told


async def _retried_worker(parts):
    machine, fleet, _, _ = parts
    machine._workers.sockets = {"a@1": "/sockets/old"}
    await machine.take(_offer(1, "a"))
    fleet.processes[0].report = Report(1, 1, {"a@1": QUARANTINED})
    machine._workers.out = {"a@1": "quarantined: its worker was lost 3 times"}
    return asyncio.create_task(machine.retry("a", fleet.processes[0]))


async def test_a_retry_gives_a_quarantined_worker_another_chance(parts):
    """Processes are led to its new socket; who asked hears when they serve it."""
    machine, fleet, _, _ = parts
    retrying = await _retried_worker(parts)
    await eventually_async(lambda: fleet.processes[0].prepared.sockets == {"a@1": "/sockets/new"})
    assert not retrying.done()
    _report(fleet, 1, a=VersionState.READY)
    assert await asyncio.wait_for(retrying, 10) == ""
    assert machine._workers.out == {}


async def test_a_retry_whose_worker_is_quarantined_again_is_answered(parts):
    """With the reason, though the processes only repeat what they were told before."""
    machine, fleet, _, _ = parts
    retrying = await _retried_worker(parts)
    await eventually_async(lambda: fleet.processes[0].prepared.sockets == {"a@1": "/sockets/new"})
    machine._workers.out = {"a@1": "quarantined: again"}
    assert await asyncio.wait_for(retrying, 10) == "a@1 cannot be served: quarantined: again"


async def test_a_retry_whose_worker_cannot_be_started_is_answered(parts):
    """At once, with the reason."""
    machine, _, _, _ = parts
    machine._workers.failure = "golden.json: cannot be read"
    assert await (await _retried_worker(parts)) == "a cannot be served: golden.json: cannot be read"


async def test_there_is_nothing_to_retry_without_a_quarantine(parts):
    """A repository load of any other model is control's matter alone."""
    machine, fleet, _, _ = parts
    await machine.take(_offer(1, "a"))
    _report(fleet, 1, a=VersionState.FAILED)
    told = fleet.processes[0].prepared
    assert await machine.retry("a", fleet.processes[0]) == ""
    assert fleet.processes[0].prepared is told


async def test_what_hinders_the_first_snapshot_is_why_the_machine_is_not_ready(parts):
    """An operator who asks whether it is ready hears that the disk is full, not that nothing was published."""
    machine, _, _, _ = parts
    machine.hinder("state folder /s (--state) cannot be used: No space left on device")
    assert machine.not_ready == "state folder /s (--state) cannot be used: No space left on device"
