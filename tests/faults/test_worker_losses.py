"""Workers that die, hang or keep dying, seen by the supervisor and by a gateway process."""

import asyncio
import signal

import pytest

from adapters.worker import supervisor
from adapters.worker.supervisor import SupervisorState
from tests.contract.worker_models import python_model, source
from tests.supervised import alive, connected, context, held, supervised
from tests.waiting import eventually_async
from turnout.core.errors import WorkerLost

ALL = ("y", "z")


@pytest.fixture
def holder(tmp_path):
    """The model of the worker suite, for the Python worker."""
    return python_model(tmp_path).source


class Watch:
    """What a gateway process hears of its worker."""

    def __init__(self, model):
        self.lost = []
        self.back = 0
        model.watch(lambda reason, calls: self.lost.append((reason, calls)), self._came_back)

    def _came_back(self):
        self.back += 1


async def test_a_killed_worker_fails_its_calls_at_once_and_comes_back(holder):
    """With 40 calls in flight a SIGKILL fails each with WorkerLost at once; a fresh worker serves within seconds."""
    async with supervised(holder, "python") as worker, connected(holder) as model:
        watch = Watch(model)
        calls = [asyncio.create_task(model.predict(held(1, hold_ms=600_000), ALL, context(60))) for _ in range(40)]
        await eventually_async(lambda: len(model._channel._pending) == 40)
        killed = worker.kill()
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert {type(outcome) for outcome in outcomes} == {WorkerLost}
        assert [calls for _, calls in watch.lost] == [40]
        with pytest.raises(WorkerLost):
            await model.predict(held(1), ALL, context())
        await eventually_async(lambda: watch.back, 20)
        assert (await model.predict(held(2), ALL, context()))["y"].array.tolist() == [4]
        assert worker.supervisor.restarts == 1
        assert worker.supervisor.pid != killed
        assert (SupervisorState.LOST, "killed by signal 9 (SIGKILL)") in worker.states


async def test_grandchildren_die_with_the_worker(tmp_path):
    """What a worker started goes with it, although it holds the worker's output open."""
    (tmp_path / "spawning.py").write_text("""
import subprocess
import sys

class Model:
    signature = {"inputs": [], "outputs": []}

    def load(self, path, options):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(path + "/child", "w") as file:
            file.write(str(child.pid))
""")
    async with supervised(source(tmp_path, tmp_path, {"class": "spawning:Model"}), "python") as worker:
        child = int((tmp_path / "child").read_text())
        assert alive(child)
        worker.kill()
        await eventually_async(lambda: not alive(child))


async def test_a_stuck_worker_is_replaced(holder, monkeypatch):
    """A stopped worker answers no PING and is killed after the limit; its calls fail and a fresh one serves."""
    monkeypatch.setattr(supervisor, "STUCK_S", 0.5)
    monkeypatch.setattr(supervisor, "STUCK_TIMES_P99", 0.0)
    monkeypatch.setattr(supervisor, "PING_EVERY_S", 0.1)
    async with supervised(holder, "python") as worker, connected(holder) as model:
        watch = Watch(model)
        call = asyncio.create_task(model.predict(held(1), ALL, context(60)))
        await call
        stopped = worker.kill(signal.SIGSTOP)
        call = asyncio.create_task(model.predict(held(1), ALL, context(60)))
        with pytest.raises(WorkerLost):
            await asyncio.wait_for(call, 10)
        await eventually_async(lambda: watch.back, 20)
        assert not alive(stopped)
        assert any("stuck" in reason for _, reason in worker.states)


async def test_a_model_that_hangs_is_stuck(holder, monkeypatch):
    """PING waits behind predictions: one that never ends makes its worker stuck."""
    monkeypatch.setattr(supervisor, "STUCK_S", 0.5)
    monkeypatch.setattr(supervisor, "STUCK_TIMES_P99", 0.0)
    monkeypatch.setattr(supervisor, "PING_EVERY_S", 0.1)
    async with supervised(holder, "python"), connected(holder) as model:
        with pytest.raises(WorkerLost):
            await asyncio.wait_for(model.predict(held(1, hold_ms=600_000), ALL, context(60)), 10)


async def test_a_worker_that_keeps_dying_is_started_ever_later(holder, monkeypatch):
    """The pause doubles with each loss, and after five within a minute it is the longest at once."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 3600.0)
    async with supervised(holder, "python") as worker:
        for loss in range(1, 6):
            worker.kill()
            await eventually_async(
                lambda seen=loss: [s for s, _ in worker.states].count(SupervisorState.LOST) == seen, 20
            )
            if loss < 5:
                await worker.becomes(SupervisorState.READY)
        assert worker.reason.endswith("5 losses within 60 s")
        assert worker.supervisor.pause_s == 3600.0
        assert worker.supervisor.restarts == 4


async def test_a_quarantined_worker_is_killed_and_not_restarted(holder):
    """Quarantine ends the process at once and for good."""
    async with supervised(holder, "python") as worker:
        pid = worker.supervisor.pid
        worker.supervisor.quarantine("three losses")
        assert worker.states[-1] == (SupervisorState.QUARANTINED, "three losses")
        await eventually_async(lambda: not alive(pid))
        await worker.supervisor.stop(5)
        assert worker.state is SupervisorState.QUARANTINED
        assert worker.supervisor.restarts == 0


async def test_killed_while_loading_it_is_tried_again(tmp_path):
    """A worker killed while it loads is no failed version: the next one may load."""
    (tmp_path / "slow.py").write_text("""
import os
import signal

class Model:
    signature = {"inputs": [], "outputs": []}

    def load(self, path, options):
        try:
            os.mkdir(path + "/tried")
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
""")
    async with supervised(source(tmp_path, tmp_path, {"class": "slow:Model"}), "python") as worker:
        assert worker.supervisor.restarts == 1


async def test_a_worker_that_does_not_stop_is_killed(tmp_path):
    """A worker that ignores DRAIN and SIGTERM is killed once the grace is over."""
    (tmp_path / "stubborn.py").write_text("""
import signal

class Model:
    signature = {"inputs": [], "outputs": []}

    def load(self, path, options):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
""")
    async with supervised(source(tmp_path, tmp_path, {"class": "stubborn:Model"}), "python") as worker:
        pid = worker.kill(signal.SIGSTOP)
        await asyncio.wait_for(worker.supervisor.stop(0.2), 20)
        assert not alive(pid)
