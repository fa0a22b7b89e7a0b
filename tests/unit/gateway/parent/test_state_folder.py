"""Who may use STATE, and what is left of earlier users."""

import asyncio
import os
import socket

import pytest

from gateway.parent import last_good
from gateway.parent.failure import CannotStart
from gateway.parent.identity import gateway_name
from gateway.parent.state_folder import StateFolder
from tests.waiting import eventually_async
from turnout.core.snapshot import Snapshot, encode


def test_one_parent_at_a_time_uses_a_state_folder(tmp_path):
    """A second parent is refused with one line that names the folder and the first one; after it, it may start."""
    state = StateFolder(tmp_path / "state")
    with pytest.raises(CannotStart, match=rf"state folder .*state \(--state\) is in use by process {os.getpid()}"):
        StateFolder(tmp_path / "state")
    state.close()
    StateFolder(tmp_path / "state").close()


async def test_the_next_parent_waits_for_orphans_and_its_loop_goes_on(tmp_path, monkeypatch):
    """What a killed parent left behind holds the lock for a moment; in vain it waits for so long only."""
    root = tmp_path / "state"
    left = StateFolder(root)
    opening = asyncio.create_task(StateFolder.open(root))
    await eventually_async(lambda: not opening.done())
    left.close()
    opened = await asyncio.wait_for(opening, 10)
    monkeypatch.setattr("gateway.parent.state_folder._ORPHANS_GONE_S", 0.0)
    with pytest.raises(CannotStart, match="in use by process"):
        await StateFolder.open(root)
    opened.close()


async def test_another_parent_that_lives_is_not_waited_for(tmp_path):
    """It will not go by itself: the refusal comes at once."""
    state = StateFolder(tmp_path / "state")
    os.pwrite(state.lock_fd, f"{os.getppid():<20}".encode(), 0)
    with pytest.raises(CannotStart, match=f"in use by process {os.getppid()}"):
        await asyncio.wait_for(StateFolder.open(tmp_path / "state"), 5)
    state.close()


def test_a_file_in_the_place_of_the_folder_is_one_clear_line(tmp_path):
    """What cannot be a state folder is named, with its flag and the reason."""
    (tmp_path / "state").touch()
    with pytest.raises(CannotStart, match=r"state folder .* \(--state\) cannot be used: File exists"):
        StateFolder(tmp_path / "state")


def test_nothing_of_an_earlier_run_is_left_in_the_way(tmp_path):
    """Sockets and metrics of a parent that was killed are gone at the next start."""
    state = StateFolder(tmp_path / "state")
    stale = state.sockets / "worker"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    (state.metrics / "counter_0.db").touch()
    os.close(state.lock_fd)
    again = StateFolder(tmp_path / "state")
    assert not stale.exists()
    assert list(again.metrics.iterdir()) == []
    again.close()


def test_a_long_state_path_gets_a_private_folder_for_its_sockets(tmp_path):
    """Socket paths always fit; the private folder is the owner's alone and goes with the run."""
    state = StateFolder(tmp_path / ("long" * 30))
    assert len(str(state.sockets / ("x" * 24))) <= 107
    assert state.sockets.stat().st_mode & 0o777 == 0o700
    state.close()
    assert not state.sockets.exists()


def test_the_last_good_snapshot_comes_back_byte_for_byte(tmp_path):
    """What is kept is read again, with the bytes that its digest covers."""
    data = encode(Snapshot("r", 3, 2, problems={"a": 'é \\ " broken'}))
    path = tmp_path / "snapshot.json"
    last_good.write(path, data)
    assert last_good.read(path) == (Snapshot("r", 3, 2, problems={"a": 'é \\ " broken'}), data)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data.replace(b'"r"', b'"s"'), lambda _: b""])
def test_a_torn_or_changed_snapshot_is_refused_and_said(tmp_path, caplog, damage):
    """A truncated, altered or empty file is not used, and the log names it."""
    path = tmp_path / "snapshot.json"
    last_good.write(path, encode(Snapshot("r", 3, 2)))
    path.write_bytes(damage(path.read_bytes()))
    assert last_good.read(path) is None
    assert "snapshot.json is not used" in caplog.text


def test_no_snapshot_is_no_complaint(tmp_path, caplog):
    """A first start has none."""
    assert last_good.read(tmp_path / "snapshot.json") is None
    assert caplog.text == ""


def test_a_gateway_keeps_its_name(tmp_path):
    """Control knows a machine by the same name after a restart."""
    assert gateway_name(tmp_path / "gateway") == gateway_name(tmp_path / "gateway")
