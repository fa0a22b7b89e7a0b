"""Relief: the next process serves before the old one is asked to leave, and no failure of it costs anything."""

import asyncio

from gateway.parent.messages import Drain, Leaves, Listening, Loads, Report
from tests.unit.gateway.parent.fake_fleet import READY, leading, publication, served
from tests.waiting import eventually_async
from turnout.core.report import VersionReport, VersionState

RELIEVED = Drain(5.0, relieved=True)
FAILED = VersionReport(VersionState.FAILED, "no memory")


async def _open(fleet, count):
    """Have all processes open their doors; return the one that is started then."""
    for process in fleet.started:
        if not process.listening:
            process.says(Listening())
    await eventually_async(lambda: len(fleet.started) == count)
    return fleet.started[-1]


async def test_processes_are_replaced_one_after_the_other(tmp_path):
    """Nobody leaves before the next one has opened its doors, and the next relief waits for the end of the last."""
    async with leading(tmp_path) as fleet:
        await served(fleet, 1)
        first, second = fleet.started
        restarting = asyncio.create_task(fleet.restart())
        third = await _open(fleet, 3)
        third.is_warm(1)
        assert (third.replaces, third.commits(), first.leaves) == (True, [1], False)
        third.says(Listening())
        await eventually_async(lambda: RELIEVED in first.sent)
        assert len(fleet.started) == 3
        assert third.slot not in (first.slot, second.slot)
        first.died.set_result(0)
        fourth = await _open(fleet, 4)
        fourth.is_warm(1)
        fourth.says(Listening())
        await eventually_async(lambda: RELIEVED in second.sent)
        second.died.set_result(0)
        assert await restarting == ""
        assert fleet.processes == [third, fourth]
        third.died.set_result(1)  # and from then on it is kept alive as any other
        await eventually_async(lambda: len(fleet.started) == 5)


async def test_a_successor_that_fails_what_is_served_does_not_take_over(tmp_path):
    """A version that the old process serves and the new one cannot load ends the restart; the old one stays."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (old,) = fleet.started
        restarting = asyncio.create_task(fleet.restart())
        new = await _open(fleet, 2)
        new.says(Report(0, 1, {"m@1": FAILED}))
        assert "m@1 failed to load: no memory" in await restarting
        assert (fleet.processes, old.leaves, new.commits()) == ([old], False, [])


async def test_where_nothing_is_served_nothing_is_replaced(tmp_path):
    """An operator who restarts too early reads so."""
    async with leading(tmp_path, 1) as fleet:
        assert await fleet.restart() == "no gateway process serves yet"
        assert len(fleet.started) == 1


async def test_a_successor_that_dies_ends_the_restart(tmp_path):
    """What it was loading is suspected, the old process serves on, and a later restart may succeed."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (old,) = fleet.started
        restarting = asyncio.create_task(fleet.restart())
        new = await _open(fleet, 2)
        new.says(Loads({"m@1": "sha256:1"}))
        new.died.set_result(-9)
        assert "it ended with status -9" in await restarting
        assert fleet.processes == [old]
        again = asyncio.create_task(fleet.restart())
        third = await _open(fleet, 3)
        assert third.prepared.alone == ["m@1"]
        third.says(Report(0, 1, {"m@1": READY}))
        third.says(Listening())
        await eventually_async(lambda: RELIEVED in old.sent)
        old.died.set_result(0)
        assert await again == ""


async def test_a_process_that_dies_while_it_is_relieved_is_followed_by_its_successor(tmp_path):
    """No third process is started for the two."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (old,) = fleet.started
        restarting = asyncio.create_task(fleet.restart())
        new = await _open(fleet, 2)
        old.died.set_result(-9)
        assert "ended before another one could take over" in await restarting
        assert fleet.processes == [new]
        new.is_warm(1)
        new.says(Listening())
        assert len(fleet.started) == 2


async def test_a_process_that_an_operator_signals_is_relieved_first(tmp_path):
    """It serves until another one does in its place."""
    async with leading(tmp_path, 1) as fleet:
        await served(fleet, 1)
        (old,) = fleet.started
        old.says(Listening())
        old.says(Leaves())
        await eventually_async(lambda: len(fleet.started) == 2)
        assert not any(isinstance(message, Drain) for message in old.sent)
        fleet.started[1].is_warm(1)
        fleet.started[1].says(Listening())
        await eventually_async(lambda: RELIEVED in old.sent)


async def test_a_load_that_is_cut_short_by_an_operator_is_nobodys_fault(tmp_path):
    """A process that leaves while it loads is no loading death, however it ends."""
    async with leading(tmp_path, 1) as fleet:
        fleet.offer(publication(1))
        for life in range(1, 5):
            await eventually_async(lambda life=life: len(fleet.started) == life)
            process = fleet.started[-1]
            assert process.prepared.alone == []
            process.says(Loads({"m@1": "sha256:1"}))
            process.says(Leaves())
            process.kill("did not end in time")
        await eventually_async(lambda: len(fleet.started) == 5)
