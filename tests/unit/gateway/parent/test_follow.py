"""The long poll: what is taken, what is refused, and how an operator overrules."""

import asyncio
import contextlib

import pytest

from gateway.parent import follow as follow_module
from gateway.parent.control_client import ControlUnreachable, Offer
from gateway.parent.follow import Follow, Position
from tests.waiting import eventually_async
from turnout.core.snapshot import Snapshot, encode


class FakeControl:
    """Answers polls with what `now` holds: a snapshot, or nobody there."""

    url = "http://control"

    def __init__(self, now):
        self.now = now
        self.asked_after = []

    async def snapshot(self, after):
        """Answer at once, or wait a moment when there is nothing newer."""
        self.asked_after.append(after)
        if self.now is None:
            raise ControlUnreachable("connection refused")
        if after >= self.now.generation:
            await asyncio.sleep(0.01)
            return None
        return _offer(self.now)


def _offer(snapshot):
    return Offer(snapshot, encode(snapshot), None)


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(follow_module, "_LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(follow_module, "_FIRST_PAUSE_S", 0.01)


@contextlib.asynccontextmanager
async def _following(control, tmp_path, position=None):
    taken, refusals = [], []

    async def take(offer):
        taken.append(offer.snapshot)
        return True

    follow = Follow(control, tmp_path / "adopt", take, refusals.append)
    follow.position = position
    task = asyncio.create_task(follow.run())
    yield follow, taken, refusals
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("_quick")
async def test_each_newer_snapshot_is_taken_once(tmp_path):
    """After a snapshot the poll waits for newer ones only."""
    control = FakeControl(Snapshot("r", 1, 0))
    async with _following(control, tmp_path) as (follow, taken, refusals):
        await eventually_async(lambda: 1 in control.asked_after)
        control.now = Snapshot("r", 2, 2)
        await eventually_async(lambda: len(taken) == 2)
        assert [snapshot.generation for snapshot in taken] == [1, 2]
        assert follow.position.generation == 2
        assert refusals == []


@pytest.mark.usefixtures("_quick")
async def test_another_registry_is_refused_until_an_operator_adopts_it(tmp_path):
    """Control of another registry changes nothing; with the operator's word it is followed, whatever its generation."""
    mine = Snapshot("mine", 9, 9)
    control = FakeControl(Snapshot("other", 1, 1))
    async with _following(control, tmp_path, Position.of(mine, encode(mine))) as (follow, taken, refusals):
        await eventually_async(lambda: refusals)
        assert "control is registry other, this gateway follows mine" in refusals[0]
        assert taken == []
        (tmp_path / "adopt").touch()
        await eventually_async(lambda: taken)
        assert follow.position.registry_id == "other"
        assert refusals[-1] == ""
        await eventually_async(lambda: not (tmp_path / "adopt").exists())


@pytest.mark.usefixtures("_quick")
async def test_a_control_that_went_back_is_noticed_after_an_outage(tmp_path):
    """Whoever answers after silence is asked for what it has, not only for what is newer."""
    control = FakeControl(Snapshot("r", 5, 5))
    async with _following(control, tmp_path) as (_, taken, refusals):
        await eventually_async(lambda: taken)
        control.now = None
        await eventually_async(lambda: control.asked_after[-1] == 0)
        control.now = Snapshot("r", 4, 4)
        await eventually_async(lambda: refusals)
        assert "control is at generation 4, this gateway at 5" in refusals[0]
        assert [snapshot.generation for snapshot in taken] == [5]


@pytest.mark.usefixtures("_quick")
async def test_a_snapshot_that_cannot_be_stored_is_tried_again(tmp_path, caplog):
    """A full disk is said, here and to control, and does not end the following."""
    control = FakeControl(Snapshot("r", 1, 1))
    failures = [OSError(28, "No space left on device")]
    taken = []

    async def take(offer):
        if failures:
            raise failures.pop()
        taken.append(offer)
        return True

    refusals = []
    task = asyncio.create_task(Follow(control, tmp_path / "adopt", take, refusals.append).run())
    await eventually_async(lambda: taken)
    assert "generation 1 cannot be taken: [Errno 28] No space left on device" in caplog.text
    assert refusals == ["generation 1 cannot be taken: [Errno 28] No space left on device", ""]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("_quick")
async def test_bytes_that_were_missing_are_asked_for_again(tmp_path):
    """Control may have them later, and publishes nothing new for that."""
    whole = [False, False, True]
    taken = []

    async def take(offer):
        taken.append(offer.snapshot.generation)
        return whole.pop(0)

    control = FakeControl(Snapshot("r", 1, 1))
    task = asyncio.create_task(Follow(control, tmp_path / "adopt", take, lambda _: None).run())
    await eventually_async(lambda: control.asked_after[-3:] == [1, 1, 1])
    assert taken == [1, 1, 1]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("_quick")
async def test_a_word_of_the_operator_that_cannot_be_read_or_removed_does_not_end_the_following(tmp_path, caplog):
    """A state folder that fails costs a line in the log, not the parent."""
    adopt = tmp_path / "adopt"
    adopt.mkdir()
    control = FakeControl(Snapshot("r", 1, 1))
    async with _following(control, tmp_path) as (_, taken, _refusals):
        await eventually_async(lambda: taken)
        await eventually_async(lambda: f"remove {adopt} by hand" in caplog.text)
        control.now = Snapshot("r", 2, 2)
        await eventually_async(lambda: len(taken) >= 2)
