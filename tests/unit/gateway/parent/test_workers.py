"""Workers follow what is held, are counted, and are quarantined when they keep dying under calls."""

import asyncio
from typing import ClassVar

import pytest

from adapters.interface import LoadFailed
from adapters.worker.supervisor import SupervisorState
from gateway.observe.exposition import render
from gateway.observe.metrics import Metrics
from gateway.parent import workers as workers_module
from gateway.parent.fetch import VersionFiles
from gateway.parent.messages import WorkerGone
from gateway.parent.workers import Workers
from tests.waiting import eventually_async
from turnout.core.manifest import Runtime
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import VersionEntry

LOST = {"m@1": VersionReport(VersionState.LOST, "killed", crashed_calls=2)}
READY = {"m@1": VersionReport(VersionState.READY)}
QUARANTINED = (
    "quarantined: its worker was lost 3 times within 60 s with calls in flight; "
    "load it again, or start Turnout again, to retry"
)


class FakeSupervisor:
    """Starts nothing; remembers what it is told."""

    made: ClassVar[list] = []

    def __init__(self, source, runtime, *, starts, on_state):
        self.source, self.runtime, self.on_state = source, runtime, on_state
        self.restarts = 0
        self.pause_s = 0.5
        self.started = False
        self.stopped = None
        self.quarantined = ""
        self.made.append(self)

    async def start(self):
        """Start."""
        self.started = True

    async def stop(self, grace_s):
        """Stop."""
        self.stopped = grace_s

    def quarantine(self, reason):
        """Take out."""
        self.quarantined = reason


@pytest.fixture
def made(monkeypatch):
    """Return the supervisors that are made, in order."""
    FakeSupervisor.made = []
    monkeypatch.setattr(workers_module, "WorkerSupervisor", FakeSupervisor)
    monkeypatch.setattr(workers_module, "_LINGER_S", 0.0)
    return FakeSupervisor.made


@pytest.fixture
def gone():
    """Return what `on_gone` hears."""
    return []


@pytest.fixture
async def workers(tmp_path, made, gone):
    """Return the workers of a machine in an empty folder."""
    metrics = Metrics(tmp_path, "parent")
    files = VersionFiles(tmp_path, None)
    yield Workers(files, tmp_path, tmp_path, metrics, gone.append, gone.append)
    metrics.close()


def _entry(runtime=Runtime.PYTHON, number=1, digest="sha256:a", golden=None):
    return VersionEntry("m", number, digest, runtime, "model.py", (), golden=golden)


async def test_only_runtimes_in_processes_of_their_own_get_workers(workers, made):
    """Each such version has one worker, however often it is held, on a socket of its own."""
    entries = [_entry(), _entry(Runtime.ONNX, 2), _entry(Runtime.JVM, 3)]
    sockets = await workers.hold(entries)
    assert await workers.hold(entries) == sockets
    assert sorted(sockets) == ["m@1", "m@3"]
    assert len(set(sockets.values())) == 2
    await eventually_async(lambda: [one.started for one in made] == [True, True])
    assert [one.runtime for one in made] == ["python", "jvm"]


async def test_a_worker_that_is_no_longer_held_is_stopped(workers, made, gone):
    """It finishes what it has; held again, the version gets another worker on another socket."""
    first = await workers.hold([_entry()])
    workers.release([])
    await eventually_async(lambda: made[0].stopped == 30.0)
    assert gone == ["m@1"]
    assert await workers.hold([_entry()]) != first
    assert len(made) == 2


async def test_changed_bytes_get_another_worker(workers, made):
    """A number that came back with other bytes is another version."""
    first = await workers.hold([_entry()])
    assert await workers.hold([_entry(digest="sha256:b")]) != first
    await eventually_async(lambda: made[0].stopped is not None)
    assert made[1].stopped is None


async def test_a_worker_that_will_not_come_is_told_with_its_reason(workers, made, gone):
    """A failed load, and a golden file that cannot be read, reach the gateway processes."""
    await workers.hold([_entry()])
    made[0].on_state(SupervisorState.FAILED, "no JDK found")
    assert await workers.hold([_entry(number=2, golden="golden.json")]) == {}
    assert gone[0] == WorkerGone("m@1", "no JDK found")
    assert gone[1].version == "m@2"
    assert "golden.json: cannot be read" in gone[1].reason


async def test_restarts_are_counted(workers, made, tmp_path):
    """The counter names model and version, and counts each restart once."""
    await workers.hold([_entry()])
    for restarts in (1, 1, 3):
        made[0].restarts = restarts
        workers.watch({})
    text = render(tmp_path, frozenset({"m@1"}), frozenset()).decode()
    assert 'turnout_worker_restarts_total{model="m",version="1"} 3.0' in text


async def test_a_loss_is_one_line_in_the_log(workers, made, caplog):
    """It says how the worker died, how many calls that cost in all processes, and when the next one starts."""
    await workers.hold([_entry()])
    made[0].on_state(SupervisorState.LOST, "killed by signal 9 (SIGKILL)")
    workers.watch({1: LOST, 2: READY})
    assert "died" not in caplog.text
    workers.watch({1: LOST, 2: LOST, 3: {}})
    workers.watch({1: LOST, 2: LOST, 3: {}})
    line = "worker of m@1 died: killed by signal 9 (SIGKILL); 4 calls lost; restarting in 0.5 s"
    assert [record.getMessage() for record in caplog.records if "died" in record.getMessage()] == [line]


async def test_a_loss_is_told_though_a_process_does_not_speak_of_it(workers, made, caplog, monkeypatch):
    """One that hangs, and so never says that its calls are lost, is not waited for without end."""
    now_s = 100.0
    monkeypatch.setattr(workers_module.clock, "monotonic_s", lambda: now_s)
    await workers.hold([_entry()])
    made[0].on_state(SupervisorState.LOST, "exited with status 3")
    workers.watch({1: READY})
    assert "died" not in caplog.text
    now_s += 1
    workers.watch({1: READY})
    assert "worker of m@1 died: exited with status 3; 0 calls lost; restarting in 0.5 s" in caplog.text


async def test_three_losses_under_calls_quarantine_a_version(workers, made, gone, monkeypatch):
    """Two processes that report one loss count once; the third loss takes the version out, everywhere."""
    now_s = 100.0
    monkeypatch.setattr(workers_module.clock, "monotonic_s", lambda: now_s)
    await workers.hold([_entry()])
    for _ in range(3):
        assert made[0].quarantined == ""
        workers.watch({1: LOST, 2: READY})
        workers.watch({1: LOST, 2: LOST})
        now_s += 10
        workers.watch({1: READY, 2: READY})
    assert made[0].quarantined == QUARANTINED
    assert gone == [WorkerGone("m@1", QUARANTINED, quarantined=True)]
    assert workers.quarantined("m") == {"m@1": QUARANTINED}
    assert workers.quarantined("other") == {}


async def test_losses_during_the_rehearsal_count_too(workers, made, monkeypatch):
    """A golden file that ends each fresh worker takes the version out, though it is never ready in between."""
    now_s = 100.0
    monkeypatch.setattr(workers_module.clock, "monotonic_s", lambda: now_s)
    rehearsed = {"m@1": VersionReport(VersionState.LOST, "killed")}
    await workers.hold([_entry()])
    for _ in range(3):
        assert made[0].quarantined == ""
        workers.watch({1: LOST})
        now_s += 1
        workers.watch({1: rehearsed})
    assert made[0].quarantined == QUARANTINED


async def test_a_pardoned_version_gets_another_worker(workers, made, gone, monkeypatch):
    """It comes on another socket, nothing is held against it, and what processes were told is taken back."""
    now_s = 100.0
    monkeypatch.setattr(workers_module.clock, "monotonic_s", lambda: now_s)
    first = await workers.hold([_entry()])
    for _ in range(3):
        workers.watch({1: LOST})
        now_s += 1
        workers.watch({1: READY})
    socket = await workers.pardon("m@1")
    assert workers.quarantined("m") == {}
    assert gone[1:] == ["m@1"]
    assert await workers.hold([_entry()]) == {"m@1": socket} != first
    for _ in range(2):
        workers.watch({1: LOST})
        now_s += 1
        workers.watch({1: READY})
    assert [one.quarantined for one in made] == [QUARANTINED, ""]


async def test_a_pardon_that_cannot_start_a_worker_says_why(workers, made, gone):
    """Who asked for the load hears it, and so do the processes."""
    await workers.hold([_entry()])
    workers._workers["m@1"].entry = _entry(golden="gone.json")
    with pytest.raises(LoadFailed, match=r"gone.json: cannot be read"):
        await workers.pardon("m@1")
    assert "gone.json: cannot be read" in gone[-1].reason
    assert not gone[-1].quarantined


async def test_a_loss_without_calls_in_flight_is_no_reason(workers, made):
    """A worker that dies idle is only restarted."""
    idle = {"m@1": VersionReport(VersionState.LOST, "killed")}
    await workers.hold([_entry()])
    for _ in range(5):
        workers.watch({1: idle})
        workers.watch({1: READY})
    assert made[0].quarantined == ""


async def test_the_end_stops_all_of_them_at_once(workers, made, monkeypatch):
    """Those that linger are stopped too."""
    monkeypatch.setattr(workers_module, "_LINGER_S", 60.0)
    await workers.hold([_entry(), _entry(number=2)])
    workers.release([_entry()])
    await asyncio.sleep(0)
    await workers.stop(1.5)
    assert [one.stopped for one in made] == [1.5, 1.5]
