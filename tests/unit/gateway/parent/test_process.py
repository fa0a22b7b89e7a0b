"""One gateway process as the parent sees it."""

import asyncio
import socket

import pytest

from gateway.parent import process as process_module
from gateway.parent.messages import (
    CannotObey,
    Commit,
    Heartbeat,
    Listening,
    Loads,
    Prepare,
    Report,
    RepositoryCall,
    line,
    to_process,
)
from gateway.parent.process import GatewayProcess
from tests.waiting import eventually_async


class FakeExecuted:
    """A child that ends when it is killed."""

    pid = 4711

    def __init__(self):
        self.returncode = None
        self.ended = asyncio.get_running_loop().create_future()

    def end(self, number):
        """End."""
        self.returncode = -number
        if not self.ended.done():
            self.ended.set_result(-number)

    async def wait(self):
        """Wait for the end."""
        return await asyncio.shield(self.ended)


@pytest.fixture
async def pair(monkeypatch):
    """Return a process, the stream of what it is told, and all that it said."""
    monkeypatch.setattr(process_module.child, "signal_child", FakeExecuted.end)
    ours, theirs = socket.socketpair()
    heard = []
    streams = await asyncio.open_connection(sock=ours, limit=process_module.MAX_LINE_BYTES)
    process = GatewayProcess(3, FakeExecuted(), streams, lambda _, message: heard.append(message))
    reader, writer = await asyncio.open_connection(sock=theirs)
    yield process, reader, writer, heard
    process.kill("the test ends")
    writer.close()
    await process.wait()


async def test_what_the_parent_says_arrives_in_order_and_is_remembered(pair):
    """The parent knows what each process was told to prepare and to serve."""
    process, reader, _, _ = pair
    prepare = Prepare(1, "/run/1.json", {}, {})
    assert not process.in_service
    process.send(prepare)
    process.send(Commit(1))
    assert [to_process.decode(await reader.readline()) for _ in range(2)] == [prepare, Commit(1)]
    assert process.prepared is prepare
    assert process.in_service


async def test_what_the_process_says_is_heard(pair):
    """Reports and open doors are kept; everything is handed on."""
    process, _, writer, heard = pair
    said = [Report(1, 1, {}), Listening(), RepositoryCall(1, "load", "m")]
    writer.writelines(map(line, said))
    writer.close()
    await process._reading
    assert heard == said
    assert process.report == said[0]
    assert process.listening


async def test_silence_for_too_long_is_the_end(pair, monkeypatch, caplog):
    """A process that has spoken once must go on speaking; the log says why it was killed."""
    process, _, writer, heard = pair
    writer.write(line(Heartbeat()))
    await eventually_async(lambda: heard)
    process.check_heartbeat()
    assert process._process.returncode is None
    spoken_s = process._last_heard_s
    monkeypatch.setattr(process_module.clock, "monotonic_s", lambda: spoken_s + 5.5)
    process.check_heartbeat()
    assert process._process.returncode == -9
    assert "killed: no heartbeat for 6 s" in caplog.text or "killed: no heartbeat for 5 s" in caplog.text


async def test_a_load_may_hold_a_process_up_for_longer(pair, monkeypatch):
    """Reading a big pickle holds the interpreter: half a minute of silence is allowed for it, and no more."""
    process, _, writer, heard = pair
    writer.write(line(Loads({"m@1": "sha256:1"})))
    await eventually_async(lambda: heard)
    spoken_s = process._last_heard_s
    monkeypatch.setattr(process_module.clock, "monotonic_s", lambda: spoken_s + 29)
    process.check_heartbeat()
    assert process._process.returncode is None
    monkeypatch.setattr(process_module.clock, "monotonic_s", lambda: spoken_s + 31)
    process.check_heartbeat()
    assert process._process.returncode == -9


async def test_a_refusal_is_over_when_the_process_is_asked_again(pair):
    """What it could not prepare is remembered until then, and counted."""
    process, _, writer, heard = pair
    writer.write(line(CannotObey(2, "no space")))
    await eventually_async(lambda: heard)
    assert (process.cannot, process.refusals) == (CannotObey(2, "no space"), 1)
    process.send(Prepare(2, "/run/2.json", {}, {}))
    assert (process.cannot, process.refusals) == (None, 1)


async def test_silence_is_forgiven_after_the_parent_itself_was_stopped(pair, monkeypatch):
    """A machine that slept must not kill its processes for it."""
    process, _, _, _ = pair
    later_s = process._last_heard_s + 100
    monkeypatch.setattr(process_module.clock, "monotonic_s", lambda: later_s)
    process.forgive_silence()
    process.check_heartbeat()
    assert process._process.returncode is None


async def test_a_process_that_talks_nonsense_is_killed(pair, caplog):
    """What is no message of ours ends it, with the reason in the log."""
    process, _, writer, _ = pair
    writer.write(b'{"type": "coup"}\n')
    assert await process.wait() == -9
    assert "killed: cannot be understood" in caplog.text


async def test_a_process_that_reads_nothing_is_killed_rather_than_waited_for(pair, monkeypatch):
    """Messages that nobody takes do not pile up in the parent without end."""
    process, _, _, _ = pair
    monkeypatch.setattr(process_module, "MAX_LINE_BYTES", 100_000)
    for number in range(1000):
        process.send(Prepare(number, "/run/" + "x" * 1000, {}, {}))
    assert process._process.returncode == -9
