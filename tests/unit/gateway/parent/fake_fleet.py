"""A fleet of processes that do what the test says."""

import asyncio
import contextlib

from gateway.parent.fleet import Fleet
from gateway.parent.messages import CannotObey, Commit, Drain, Leaves, Listening, Prepare, Report
from gateway.parent.publication import Publication
from gateway.parent.slots import Slots
from tests.waiting import eventually_async
from turnout.core import clock
from turnout.core.manifest import Runtime
from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import Route, Snapshot, Variant, VersionEntry, encode

READY = VersionReport(VersionState.READY)


class FakeProcess:
    """A gateway process that does what the test says."""

    pids = iter(range(1000, 10_000))

    def __init__(self, slot, replaces, heard):
        self.slot, self.replaces, self._heard = slot, replaces, heard
        self.pid = next(self.pids)
        self.started_s = clock.monotonic_s()
        self.report = None
        self.prepared = None
        self.cannot = None
        self.refusals = 0
        self.committed = 0
        self.opened = asyncio.Event()
        self.leaves = False
        self.killed_for = ""
        self.says_ready = self.hung = False
        self.sent = []
        self.died = asyncio.get_running_loop().create_future()

    @property
    def ended(self):
        """As the real one."""
        return self.died.done()

    @property
    def listening(self):
        """As the real one."""
        return self.opened.is_set()

    @property
    def in_service(self):
        """As the real one."""
        return self.committed > 0

    def send(self, message):
        """Keep what it is told."""
        self.sent.append(message)
        if isinstance(message, Drain):
            self.leaves = True
        if isinstance(message, Prepare):
            self.prepared = message
            self.cannot = None
        if isinstance(message, Commit):
            self.committed = message.generation

    def says(self, message):
        """Speak to the parent."""
        if isinstance(message, Report):
            self.report = message
        if isinstance(message, CannotObey):
            self.cannot = message
            self.refusals += 1
        if isinstance(message, Leaves):
            self.leaves = True
        if isinstance(message, Listening):
            self.opened.set()
        self._heard(self, message)

    def is_warm(self, generation):
        """Report that everything up to a generation is loaded."""
        self.says(Report(generation, generation, {f"m@{number}": READY for number in range(1, generation + 1)}))

    def commits(self):
        """Return the generations that it was told to serve."""
        return [message.generation for message in self.sent if isinstance(message, Commit)]

    def check_heartbeat(self):
        """Always alive."""

    def forgive_silence(self):
        """Never silent."""

    def kill(self, reason):
        """Die."""
        if not self.died.done():
            self.killed_for = reason
            self.died.set_result(-9)

    async def wait(self):
        """Wait for the test to end it."""
        return await asyncio.shield(self.died)


def publication(generation, folder="/run"):
    """Return a snapshot whose one route has a new champion in each generation."""
    champion = f"m@{generation}"
    entry = VersionEntry("m", generation, f"sha256:{generation}", Runtime.ONNX, "model.onnx", ())
    route = Route("m", champion, (Variant(champion, 10_000, ((0, 10_000),)),), explicit=True)
    snapshot = Snapshot("r", generation, generation, (entry,), (route,))
    prepare = Prepare(generation, f"{folder}/{generation}.json", {champion: f"/versions/{generation}"}, {})
    return Publication(snapshot, encode(snapshot), prepare)


@contextlib.asynccontextmanager
async def leading(tmp_path, count=2):
    """Lead so many processes for as long as the block runs."""
    started, calls = [], []

    async def start(slot, replaces, heard):
        started.append(FakeProcess(slot, replaces, heard))
        return started[-1]

    def look_again():
        fleet.advance()

    fleet = Fleet(count, Slots(tmp_path), start, look_again, lambda *call: calls.append(call), 5.0)
    fleet.started, fleet.calls = started, calls
    task = fleet.task = asyncio.create_task(fleet.keep())
    await eventually_async(lambda: len(started) == count or task.done())
    yield fleet
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, BaseExceptionGroup):
        await task


async def served(fleet, generation):
    """Have a generation served."""
    fleet.offer(publication(generation))
    for process in fleet.processes:
        process.is_warm(generation)
    assert fleet.serving.snapshot.generation == generation
