"""grpcio's core on the loop: calls come in, answers go out, nothing outlives its time and nothing is left behind."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import weakref

import grpc
import grpc.aio
import pytest

from gateway.doors.grpc_core import CoreServer
from tests.contract.grpc_client import NO_LIMITS
from tests.waiting import eventually_async

OPTIONS = (("grpc.so_reuseport", 0),)
WITHIN_S = 30
ANSWER = b"a"
METADATA = [("one", "1")]


@contextlib.asynccontextmanager
async def serving(accept, *, body_s=WITHIN_S, write_s=WITHIN_S, receiving=16, hold=abs):
    """Serve calls with `accept`; yields the server and a channel to it."""
    server = CoreServer(OPTIONS, accept, body_s=body_s, write_s=write_s, receiving=16, hold=abs)
    port = server.bind("127.0.0.1:0")
    server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_LIMITS) as channel:
        try:
            yield server, channel
        finally:
            await server.stop(1)


def answering(core):
    """Answer the one message of a call."""
    core.receive(lambda core, message: core.finish(METADATA, ANSWER + (b"nothing" if message is None else message), 0))


def ask(channel, message=b"", **kwargs):
    """Begin a call."""
    return channel.unary_unary("/s/m")(message, timeout=WITHIN_S, **kwargs)


async def test_a_call_comes_whole_and_is_answered():
    """Method, metadata, time left and message come in; metadata, message, status and trailing metadata go out."""
    seen = []

    def accept(core):
        seen.append((core.method, dict(core.metadata)["k"], core.left_s))
        core.receive(lambda core, message: core.finish(METADATA, ANSWER + message, 0, "", [("two", "2")]))

    async with serving(accept) as (_, channel):
        call = ask(channel, b"b", metadata=(("k", "v"),))
        assert await call == b"ab"
        assert dict(await call.initial_metadata()) == {"one": "1"}
        assert dict(await call.trailing_metadata()) == {"two": "2"}
        assert await channel.unary_unary("/s/m")(b"c", metadata=(("k", "w"),)) == b"ac"
    assert [one[:2] for one in seen] == [(b"/s/m", "v"), (b"/s/m", "w")]
    assert 0 < seen[0][2] <= WITHIN_S + 1  # grpc tells the deadline by a clock that is not exact
    assert seen[1][2] is None


def literal(name, value):
    """Return a header of HTTP/2 as it is, neither indexed nor packed."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


def frame(kind, flags, stream, payload=b""):
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


async def test_metadata_that_is_not_utf_8_fills_no_log(caplog):
    """Any caller may send any bytes: they are passed on, and nothing is logged."""
    seen = []
    heading = {b":method": b"POST", b":scheme": b"http", b":path": b"/s/m", b":authority": b"x", b"te": b"trailers"}
    fields = {**heading, b"content-type": b"application/grpc", b"k": b"\xff"}

    def accept(core):
        seen.append(dict(core.metadata)["k"])
        core.finish(METADATA, None, 0)

    server = CoreServer(OPTIONS, accept, body_s=WITHIN_S, write_s=WITHIN_S, receiving=16, hold=abs)
    port = server.bind("127.0.0.1:0")
    server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    writer.write(frame(1, 5, 1, b"".join(literal(*pair) for pair in fields.items())))
    await eventually_async(lambda: seen)
    writer.close()
    await server.stop(1)
    assert seen == ["\xff"]
    assert not caplog.records


async def test_many_calls_at_once_are_all_answered():
    """More calls than are looked at within one turn of the loop each get their own answer."""
    async with serving(answering) as (server, channel):
        answers = await asyncio.gather(*(ask(channel, b"%d" % index) for index in range(300)))
        await eventually_async(lambda: not server.ending and not server.awaited)
    assert answers == [b"a%d" % index for index in range(300)]


async def test_a_call_that_fails_ends_no_other(caplog):
    """What one call raises is logged; the next is answered."""

    def accept(core):
        if core.method == b"/s/bad":
            raise ZeroDivisionError
        answering(core)

    async with serving(accept) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/s/bad")(b"", timeout=WITHIN_S)
        assert await ask(channel) == ANSWER
    assert "a gRPC call failed" in caplog.text


async def test_a_message_that_does_not_come_is_given_up():
    """A call that never brings its message ends when its time is over; `late` tells."""
    late = []

    def accept(core):
        core.receive(lambda core, message: (late.append((core.late, message)), core.finish(METADATA, None, 4, "late")))

    async with serving(accept, body_s=0.2) as (server, channel):
        call = channel.stream_unary("/s/m")(timeout=WITHIN_S)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.details() == "late"
        await eventually_async(lambda: not server.awaited and not server.ending)
    assert late == [(True, None)]


async def test_a_call_without_a_message_is_told_apart():
    """A caller that says it has no message gets an answer at once."""
    async with serving(answering) as (_, channel):
        call = channel.stream_unary("/s/m")(timeout=WITHIN_S)
        await call.done_writing()
        assert await call == b"anothing"


async def test_an_end_that_is_not_fetched_is_cut():
    """A caller that does not read a big last message holds it no longer than it may."""
    big = bytes(16_000_000)  # more than goes into the buffers between the two
    finished = []

    def accept(core):
        core.receive(lambda core, _: finished.append(core.finish(METADATA, big, 0)))

    async with serving(accept, write_s=0.2) as (server, channel):
        call = channel.stream_stream("/s/m")(timeout=WITHIN_S)
        await call.write(b"")
        await eventually_async(lambda: finished and not server.ending)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("first", ["caller", "server"])
async def test_whoever_watches_hears_of_a_caller_that_leaves_before_the_end(first):
    """A cancelled call is told once and takes no more answers; an answered one is not told."""
    cores, left = [], []

    def accept(core):
        core.watch(lambda: left.append(core))
        core.receive(lambda core, _: cores.append(core))

    async with serving(accept) as (server, channel):
        call = ask(channel)
        (core,) = await eventually_async(lambda: cores)
        if first == "caller":
            call.cancel()
            await eventually_async(lambda: left)
            assert core.over
            core.finish(METADATA, ANSWER, 0)
        else:
            core.finish(METADATA, ANSWER, 0)
            assert await call == ANSWER
        await eventually_async(lambda: not server.ending)
    assert len(left) == (first == "caller")


async def test_stopping_leaves_nothing_behind():
    """Once stopped there is no thread, and no call is kept by what saw it."""
    seen = weakref.WeakSet()

    class Seen:
        """What a call's answer refers to."""

    def accept(core):
        mark = Seen()
        seen.add(mark)
        core.watch(lambda: mark)
        core.receive(lambda core, _: core.finish(METADATA, repr(mark).encode(), 0))

    before = threading.active_count()
    gc.disable()
    try:
        async with serving(accept) as (_, channel):
            for _ in range(5):
                await ask(channel)
        assert len(seen) == 0
    finally:
        gc.enable()
    await eventually_async(lambda: not any(thread.name == "grpc" for thread in threading.enumerate()))
    assert threading.active_count() <= before + 1  # the caller's own


async def test_a_port_that_is_taken_is_port_zero():
    """Binding a port that is held tells so, and the server can be thrown away."""
    async with serving(answering) as (server, channel):
        other = CoreServer(OPTIONS, answering, body_s=1, write_s=1, receiving=16, hold=abs)
        port = server.bind("127.0.0.1:0")
        assert port
        assert other.bind(f"127.0.0.1:{port}") == 0
        assert await ask(channel) == ANSWER


def test_a_process_ends_though_nobody_stopped_its_server():
    """A server that is left alone does not keep its process from ending."""
    code = (
        "import asyncio\n"
        "from gateway.doors.grpc_core import CoreServer\n"
        "async def main():\n"
        "    server = CoreServer((), lambda core: None, body_s=1, write_s=1, receiving=16, hold=abs)\n"
        "    server.bind('127.0.0.1:0')\n"
        "    server.start()\n"
        "    raise SystemExit(3)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=WITHIN_S, check=False).returncode == 3
