"""The fleet: processes are kept alive and led together from snapshot to snapshot."""

import pytest

from gateway.parent import asking
from gateway.parent import fleet as fleet_module
from gateway.parent.failure import CannotStart
from gateway.parent.messages import (
    CannotObey,
    Heartbeat,
    Loads,
    MachineReady,
    Report,
    RepositoryCall,
    WorkerGone,
)
from tests.unit.gateway.parent.fake_fleet import READY, leading, publication, served
from tests.waiting import eventually_async
from turnout.core.report import VersionReport, VersionState


async def test_all_processes_swap_together(tmp_path):
    """No process swaps before each has tried what the routes need."""
    async with leading(tmp_path) as fleet:
        first, second = fleet.started
        fleet.offer(publication(1))
        first.is_warm(1)
        assert (first.commits(), second.commits()) == ([], [])
        second.is_warm(1)
        assert (first.commits(), second.commits()) == ([1], [1])


async def test_a_snapshot_that_is_overtaken_is_never_served(tmp_path):
    """A newer snapshot takes the place of one that is still being prepared."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (process,) = fleet.started
        fleet.offer(publication(2))
        fleet.offer(publication(3))
        process.is_warm(3)
        assert process.commits() == [1, 3]


async def test_a_dead_process_is_replaced_in_another_life_of_its_slot(tmp_path):
    """The replacement gets the slot of the dead one and waits with its doors until it is warm."""
    async with leading(tmp_path) as fleet:
        await served(fleet, 1)
        victim, survivor = fleet.started
        victim.kill("by the test")
        await eventually_async(lambda: len(fleet.started) == 3)
        replacement = fleet.started[2]
        assert (replacement.slot, replacement.replaces, victim.replaces) == (victim.slot, True, False)
        assert replacement.commits() == []
        replacement.is_warm(1)
        assert replacement.commits() == [1]
        assert survivor.commits() == [1]


async def test_a_replacement_neither_holds_up_nor_misses_a_change(tmp_path):
    """While it warms, the others swap; it joins with the snapshot that is served by then."""
    async with leading(tmp_path) as fleet:
        await served(fleet, 1)
        fleet.started[0].kill("by the test")
        await eventually_async(lambda: len(fleet.started) == 3)
        survivor, replacement = fleet.started[1:]
        replacement.says(Report(0, 0, {}))
        fleet.offer(publication(2))
        survivor.is_warm(2)
        assert survivor.commits() == [1, 2]
        assert replacement.prepared.generation == 2
        replacement.is_warm(2)
        assert replacement.commits() == [2]


async def test_later_processes_hear_what_the_first_were_told(tmp_path):
    """That the machine is ready, and whose worker is gone, is said to replacements too; until it is taken back."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        fleet.tell_ready()
        fleet.tell_gone(WorkerGone("m@1", "quarantined"))
        fleet.tell_gone(WorkerGone("m@2", "no JDK"))
        fleet.forget_gone("m@2")
        fleet.started[0].kill("by the test")
        await eventually_async(lambda: len(fleet.started) == 2)
        replacement = fleet.started[1]
        replacement.is_warm(1)
        assert MachineReady() in replacement.sent
        assert WorkerGone("m@1", "quarantined") in replacement.sent
        assert WorkerGone("m@2", "no JDK") not in replacement.sent


async def test_a_start_gives_up_on_processes_that_never_speak(tmp_path, monkeypatch):
    """Processes that end before their first word, three times over, end the start with a reason."""
    monkeypatch.setattr(fleet_module.Backoff, "after", lambda *_: 0.0)
    async with leading(tmp_path, 1) as fleet:
        for life in range(3):
            await eventually_async(lambda life=life: len(fleet.started) == life + 1)
            fleet.started[-1].died.set_result(1)
        with pytest.raises(BaseExceptionGroup) as caught:
            await fleet.task
        (failure,) = caught.value.exceptions
        assert isinstance(failure, CannotStart)
        assert str(failure) == "gateway processes end as soon as they start (status 1)"


async def test_repository_calls_are_passed_on_with_their_process(tmp_path):
    """The answer must go to the process that asked."""
    async with leading(tmp_path, 1) as fleet:
        call = RepositoryCall(7, "load", "m")
        fleet.started[0].says(Heartbeat())
        fleet.started[0].says(call)
        assert fleet.calls == [(fleet.started[0], call)]


async def test_a_drain_ends_those_that_do_not_end_by_themselves(tmp_path, monkeypatch):
    """Every process is asked first; after its time it is killed, and none is started again."""
    monkeypatch.setattr(fleet_module, "EXIT_GRACE_S", 0.0)
    async with leading(tmp_path) as fleet:
        await served(fleet, 1)
        fleet.started[0].died.set_result(0)
        await fleet.drain(0.05)
        assert fleet.started[1].died.result() == -9
        assert len(fleet.started) <= 3


async def _next(fleet, count):
    """Return the last of so many processes, once it has been started."""
    await eventually_async(lambda: len(fleet.started) == count)
    return fleet.started[-1]


@pytest.fixture
def at_once(monkeypatch):
    """Start the next process without a pause, and ask again without one."""
    monkeypatch.setattr(fleet_module.Backoff, "after", lambda *_: 0.0)
    monkeypatch.setattr(asking, "_ASK_AGAIN_S", 0.0)


DIGEST = {"m@1": "sha256:1"}


async def test_a_version_that_processes_die_of_loading_is_refused(tmp_path, at_once, caplog):
    """The third death is the last: the next process is told not to load it, and why."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1))
        for life in range(1, 4):
            process = await _next(fleet, life)
            assert process.prepared.directories == {"m@1": "/versions/1"}
            assert process.prepared.alone == (["m@1"] if life > 1 else [])
            process.says(Loads(DIGEST))
            process.kill("by the model")
        process = await _next(fleet, 4)
        assert process.prepared.directories == {}
        assert list(process.prepared.problems) == process.prepared.quarantined == ["m@1"]
        assert "m@1: quarantined: the process died 3 times" in caplog.text
        assert "ended with status -9 while it loaded m@1" in caplog.text


async def test_an_orderly_end_is_nobodys_fault(tmp_path, at_once):
    """A process that was asked to leave in the middle of a load is no death."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1))
        for life in range(1, 5):
            process = await _next(fleet, life)
            process.says(Loads(DIGEST))
            process.died.set_result(0)
        assert (await _next(fleet, 5)).prepared.alone == []


async def test_a_load_that_a_process_survives_clears_the_version(tmp_path, at_once):
    """Deaths count only in a row; whatever ends a process later is not put down to a load that is over."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1))
        for life in range(1, 4):
            process = await _next(fleet, life)
            process.says(Loads(DIGEST))
            if life == 2:
                process.says(Loads({}))
            process.kill("by the model")
        assert (await _next(fleet, 4)).prepared.alone == ["m@1"]


async def test_a_pardon_has_the_version_loaded_once_more(tmp_path, at_once):
    """Processes in service are told again; one more death takes the pardon back."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1))
        for life in range(1, 4):
            (await _next(fleet, life)).says(Loads(DIGEST))
            fleet.started[-1].kill("by the model")
        process = await _next(fleet, 4)
        process.says(Report(0, 1, {"m@1": VersionReport(VersionState.FAILED, "quarantined")}))
        assert process.commits() == [1]
        assert not fleet.pardon("other", process)
        assert fleet.pardon("m", process)
        assert process.prepared.directories == {"m@1": "/versions/1"}
        assert process.prepared.alone == ["m@1"]
        process.says(Loads(DIGEST))
        process.kill("by the model")
        assert (await _next(fleet, 5)).prepared.directories == {}


async def test_a_new_worker_is_told_to_all_processes(tmp_path):
    """Those in service hear of its socket at once."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        fleet.serving.prepare.sockets["m@1"] = "/sockets/old"
        for version, socket in (("other@1", "/sockets/other"), ("m@1", "/sockets/new")):
            fleet.reconnect(version, socket)
        assert fleet.started[0].prepared.sockets == {"m@1": "/sockets/new"}


async def test_a_retry_is_made_by_one_process_and_then_by_all(tmp_path, at_once):
    """If it dies of it the others serve on, and he who asked hears so; if it does not, they load the version too."""
    async with leading(tmp_path) as fleet:
        fleet.offer(publication(1))
        for life in (2, 4, 6):
            await _next(fleet, life)
            for process in fleet.started[-2:]:
                process.says(Loads(DIGEST))
                process.kill("by the model")
        await _next(fleet, 8)
        asked, other = fleet.processes
        for process in (asked, other):
            process.says(Report(0, 1, {"m@1": VersionReport(VersionState.FAILED, "quarantined")}))
        assert (asked.commits(), other.commits()) == ([1], [1])
        assert fleet.pardon("m", asked)
        assert (asked.prepared.directories, other.prepared.directories) == ({}, {"m@1": "/versions/1"})
        other.says(Loads(DIGEST))
        other.kill("by the model")
        third = await _next(fleet, 9)
        assert (asked.prepared.directories, third.prepared.directories) == ({}, {})
        third.says(Report(0, 1, {"m@1": VersionReport(VersionState.FAILED, "quarantined")}))
        assert fleet.pardon("m", third)
        assert (asked.prepared.alone, third.prepared.directories) == (["m@1"], {})
        asked.says(Loads(DIGEST))
        asked.says(Loads({}))
        assert third.prepared.directories == {"m@1": "/versions/1"}
        assert third.prepared.alone == []


async def test_a_snapshot_that_a_process_cannot_prepare_is_refused_and_asked_for_again(tmp_path, at_once):
    """The reason is told, nobody swaps, and the process finds a whole file the next time."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (process,) = fleet.started
        fleet.offer(publication(2, tmp_path))
        first = process.prepared
        process.prepared = None
        process.says(CannotObey(2, "the snapshot cannot be read: no space"))
        assert fleet.refused == f"generation 2: gateway process {process.pid} cannot obey it: {_REASON}"
        process.says(Report(1, 2, {"m@1": READY, "m@2": READY}))
        assert process.commits() == [1]
        await eventually_async(lambda: process.prepared == first)
        assert (tmp_path / "2.json").read_bytes() == fleet.wanted.data
        process.is_warm(2)
        assert process.commits() == [1, 2]
        assert fleet.refused == ""


_REASON = "the snapshot cannot be read: no space"


async def test_a_new_process_that_never_can_prepare_is_replaced(tmp_path, at_once):
    """A process that does not serve yet is asked a few times; then another one gets its turn."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1, tmp_path))
        process = fleet.started[0]
        for _ in range(4):
            await eventually_async(lambda: process.prepared is not None and process not in fleet._asking)
            process.prepared = None
            process.says(CannotObey(1, _REASON))
        assert (await _next(fleet, 2)).prepared.generation == 1


async def test_a_refusal_of_what_was_overtaken_is_no_matter(tmp_path, at_once):
    """The file of a snapshot that is not wanted any more may be gone by the time it is read."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        fleet.offer(publication(2))
        fleet.offer(publication(3))
        (process,) = fleet.started
        process.says(CannotObey(2, "the snapshot cannot be read: No such file"))
        assert fleet.refused == ""
        process.is_warm(3)
        assert process.commits() == [1, 3]
