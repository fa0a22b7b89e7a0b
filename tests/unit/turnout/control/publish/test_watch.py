"""Watching one file."""

import asyncio
import os
import socket

import pytest

from tests.waiting import eventually_async
from turnout.control.publish import settle
from turnout.control.publish.watch import MAX_BYTES, Look, Watch, look


@pytest.fixture
def path(tmp_path):
    """Return the path of a file that is not there yet."""
    return tmp_path / "routes.yaml"


def watch(path, settle_s: float = 5.0) -> Watch:
    """Watch a file closely."""
    return Watch(path, 0.005, settle_s)


async def test_the_first_look_is_a_change(path):
    """Whether there is a file or none."""
    assert await watch(path).next() == Look(None)
    path.write_bytes(b"a")
    assert (await watch(path).next()).data == b"a"


@pytest.mark.parametrize("how", ["in place", "rename", "link", "delete", "touch", "same size"])
async def test_every_kind_of_change_is_seen(path, tmp_path, how):
    """Writes, renames, swapped links, deletion, and a touch, which asks for another try."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "f").write_bytes(b"old")
    (tmp_path / "two" / "f").write_bytes(b"new")
    (tmp_path / "data").symlink_to("one")
    path.symlink_to("data/f")
    watching = watch(path)
    assert (await watching.next()).data == b"old"
    following = asyncio.create_task(watching.next())
    if how == "link":
        (tmp_path / "swap").symlink_to("two")
        (tmp_path / "swap").rename(tmp_path / "data")
    elif how == "rename":
        (tmp_path / "two" / "f").rename(path)
    elif how == "delete":
        path.unlink()
    elif how == "touch":
        (tmp_path / "one" / "f").touch()
    else:
        (tmp_path / "one" / "f").write_bytes(b"newer" if how == "in place" else b"abc")
    found = await asyncio.wait_for(following, 5)
    wanted = {"in place": b"newer", "same size": b"abc", "delete": None, "touch": b"old"}
    assert found.data == wanted.get(how, b"new")


def test_a_link_that_leads_nowhere_is_no_absent_file(path):
    """Routes were meant to be there: a first start must not go on as if there were none."""
    path.symlink_to("..data/routes.yaml")
    assert look(path) == Look(None, "is a link that leads nowhere")


async def test_a_file_is_taken_when_its_writer_is_done(path, monkeypatch):
    """Not while somebody has it open for writing, however often we look."""
    asked: list[bool] = []

    def is_written(path) -> bool:
        asked.append(settle.is_written(path))
        return asked[-1]

    monkeypatch.setattr("turnout.control.publish.watch.is_written", is_written)
    watching = watch(path)
    await watching.next()
    asked.clear()
    with path.open("w") as file:
        file.write("half")
        file.flush()
        following = asyncio.create_task(watching.next())
        await eventually_async(lambda: len(asked) >= 5)
        assert not following.done()
        file.write(", whole")
    assert (await asyncio.wait_for(following, 5)).data == b"half, whole"
    assert asked[:5] == [True] * 5


async def test_a_writer_that_never_closes_is_not_waited_for_for_ever(path):
    """After the bound the file is taken as it stands."""
    with path.open("w") as file:
        file.write("all there is")
        file.flush()
        assert (await asyncio.wait_for(watch(path, settle_s=0.1).next(), 5)).data == b"all there is"


def test_what_cannot_be_read_has_a_reason(path):
    """A folder, and a file without an end."""
    path.mkdir()
    assert look(path).problem == "cannot be read: Is a directory"
    path.rmdir()
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert look(path).problem == "is over 1,048,576 bytes"


async def test_what_is_no_file_is_not_waited_for(path):
    """A pipe, a device, a socket or a circle of links is named, and the file that comes in its place is taken."""
    watching = watch(path)
    os.mkfifo(path)
    assert (await asyncio.wait_for(watching.next(), 5)).problem == "is no regular file"
    path.unlink()
    path.symlink_to("/dev/zero")
    assert look(path).problem == "is no regular file"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert look(path).problem.startswith("cannot be read: ")
    path.unlink()
    path.symlink_to(path.name)
    assert look(path).problem == "cannot be read: Too many levels of symbolic links"
    path.unlink()
    path.write_bytes(b"routes: {}")
    assert (await asyncio.wait_for(watching.next(), 5)).data == b"routes: {}"


@pytest.mark.parametrize(("data", "blank"), [(b"", True), (b" \n\t\n", True), (b"routes: {}", False)])
def test_nothing_but_space_is_blank(path, data, blank):
    """An empty file is told from one that says that there are no routes."""
    path.write_bytes(data)
    assert look(path).is_blank is blank
