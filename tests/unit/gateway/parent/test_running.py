"""A start without control: from the last good snapshot, whatever the disk does."""

import asyncio
import types

import pytest

from gateway.parent import last_good, running
from tests.waiting import eventually_async
from turnout.core.snapshot import Snapshot, encode

SNAPSHOT = Snapshot("r", 3, 2)


class FakeFollow:
    """Control is out of reach."""

    def __init__(self):
        self.position = None
        self.taken = False
        self.answered, self.failed = asyncio.Event(), asyncio.Event()
        self.failed.set()

    async def run(self):
        """Follow nobody."""


class FakeMachine:
    """Fails to take what it is offered as often as the test says."""

    def __init__(self, failures):
        self.failures = failures
        self.taken = []
        self.hindered = []

    async def take(self, offer):
        """Take."""
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        self.taken.append(offer.snapshot.generation)
        return True

    def hinder(self, reason):
        """Remember."""
        self.hindered.append(reason)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Return a function that makes the parts of a machine whose disk fails so often."""
    monkeypatch.setattr(running, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(running, "_LONGEST_PAUSE_S", 0.01)
    last_good.write(tmp_path / "snapshot.json", encode(SNAPSHOT))
    state = types.SimpleNamespace(root=tmp_path, last_good=tmp_path / "snapshot.json")

    def made(failures):
        machine = FakeMachine(failures)
        return types.SimpleNamespace(state=state, follow=FakeFollow(), machine=machine, control_process=None)

    return made


async def test_a_disk_that_fails_at_the_start_is_tried_again(parts, tmp_path, caplog):
    """The parent lives on and says what hinders it; when the disk takes the snapshot, it serves."""
    started = parts(2)
    await asyncio.wait_for(running._follow_control(started), 10)
    assert started.machine.taken == [3]
    reason = f"state folder {tmp_path} (--state) cannot be used: No space left on device"
    assert started.machine.hindered == [reason, reason, ""]
    assert f"the last good snapshot cannot be taken: {reason}; next try in 0.01 s" in caplog.text


async def test_a_disk_that_fails_is_left_to_control_once_that_answers(parts):
    """What control offers is newer than what is kept; whoever follows it tries again by itself."""
    started = parts(10**9)
    starting = asyncio.create_task(running._follow_control(started))
    await eventually_async(lambda: started.machine.hindered)
    started.follow.taken = True
    await asyncio.wait_for(starting, 10)
    assert started.machine.taken == []
    assert started.machine.hindered[-1] == ""
