"""The gateway's side of a worker connection against workers that misbehave, played by a real Unix socket server."""

import asyncio
import struct
from contextlib import asynccontextmanager

import pytest

from adapters.worker import channel as channel_module
from adapters.worker.channel import Channel, WorkerError
from adapters.worker.frames import FrameReader, FrameType, Part, pack, table, text
from adapters.worker.model import WorkerModel
from tests.contract.worker_models import source
from tests.supervised import context, held
from tests.waiting import eventually_async
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault, NotReady, Overloaded, WorkerLost

HELLO = [text("worker", "a player")]
LOADED = [
    table("inputs", [["x", "FP64", "-1", "0"], ["hold_ms", "INT64", "-1", "0"]], 4),
    table("outputs", [["y", "FP64", "-1"]], 3),
]


class Player:
    """Plays a worker: `parts[type]` answers requests of that type, or a function of the frame and the connection."""

    def __init__(self, path):
        self.path = path
        self.seen = []
        self.connections = 0  # open now
        self.plays = {
            FrameType.HELLO: (FrameType.HELLO, HELLO),
            FrameType.DESCRIBE: (FrameType.LOADED, LOADED),
        }

    async def serve(self, reader, writer):
        """Answer one connection."""
        self.connections += 1
        frames = FrameReader()
        try:
            while data := await reader.read(65536):
                for frame in frames.feed(data):
                    self._play(frame, writer)
        except ConnectionError:
            return  # an aborted connection
        finally:
            writer.close()
            self.connections -= 1

    def _play(self, frame, writer):
        self.seen.append((FrameType(frame.type), frame.id, frame.deadline_ms))
        play = self.plays.get(frame.type)
        if callable(play):
            play(frame, writer)
        elif play is not None:
            writer.writelines(pack(play[0], frame.id, play[1]))

    def types(self):
        """Return the types of the frames that came."""
        return [kind for kind, _, _ in self.seen]


@asynccontextmanager
async def playing(folder):
    """Play a worker in a folder."""
    player = Player(folder / "s")
    server = await asyncio.start_unix_server(player.serve, player.path)
    async with server:
        yield player
        await eventually_async(lambda: not player.connections, what="clients leave")


@pytest.fixture
async def player(tmp_path):
    """A worker that is played."""
    async with playing(tmp_path) as played:
        yield played


class Lost:
    """Remembers the loss of a channel."""

    def __init__(self):
        self.heard = []

    def __call__(self, reason, calls):
        """Be told."""
        self.heard.append((reason, calls))


@asynccontextmanager
async def opened(player, lost=None):
    """Open a channel and close it."""
    channel = await Channel.open(player.path, "test", lost or Lost(), Deadline.after(10))
    try:
        yield channel
    finally:
        channel.close()
        await eventually_async(lambda: not channel.is_open)


def raw(data):
    """Return a play that writes bytes as they are."""
    return lambda _frame, writer: writer.write(data)


@pytest.mark.parametrize(
    "answer",
    [
        (FrameType.PONG, []),
        (FrameType.HELLO, []),
        (FrameType.HELLO, None),
        (FrameType.HELLO, [Part("worker", "INT8", (1,), b"1")]),
    ],
)
async def test_a_worker_that_does_not_greet_is_refused(player, answer):
    """Anything but a HELLO with a name is no worker."""
    player.plays[FrameType.HELLO] = answer
    with pytest.raises(WorkerError, match="HELLO"):
        await Channel.open(player.path, "test", Lost(), Deadline.after(10))


async def test_a_silent_worker_costs_the_deadline(player):
    """A worker that never answers HELLO is DeadlineExceeded, and the connection is closed."""
    player.plays[FrameType.HELLO] = None
    lost = Lost()
    with pytest.raises(DeadlineExceeded):
        await Channel.open(player.path, "test", lost, Deadline.after(0.05))
    await eventually_async(lambda: lost.heard)


@pytest.mark.parametrize(
    "garbage", [bytes(100), struct.pack("<IBBHQII", 1 << 31, 6, 1, 0, 2, 0, 0), b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
async def test_garbage_loses_the_connection(player, garbage):
    """Bytes that are no frame fail everything in flight at once."""
    lost = Lost()
    async with opened(player, lost) as channel:
        calls = [asyncio.create_task(channel.call(FrameType.PREDICT, [], Deadline.after(20))) for _ in range(3)]
        await eventually_async(lambda: player.types().count(FrameType.PREDICT) == 3)
        player.plays[FrameType.PING] = raw(garbage)
        calls.append(asyncio.create_task(channel.call(FrameType.PING, None, Deadline.after(20))))
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert {type(outcome) for outcome in outcomes} == {WorkerLost}
        assert [calls for _, calls in lost.heard] == [4]
        with pytest.raises(WorkerLost):
            await channel.call(FrameType.PING, None, Deadline.after(20))


async def test_each_caller_gets_its_own_answer_whatever_their_order(player):
    """Answers are paired with their requests by id, also when the worker answers the last one first."""
    waiting = []

    def play(frame, writer):
        waiting.append(frame.id)
        if len(waiting) == 8:
            for number in (waiting[0], *reversed(waiting[1:])):
                writer.writelines(pack(FrameType.RESULT, number, [text("name", f"call {number}")]))

    player.plays[FrameType.PREDICT] = play
    async with opened(player) as channel:
        before = channel._last_id
        calls = [channel.call(FrameType.PREDICT, [], Deadline.after(10)) for _ in range(8)]
        frames = await asyncio.gather(*calls)
    assert [frame.id for frame in frames] == list(range(before + 1, before + 9))


async def test_an_answer_for_nobody_is_dropped(player):
    """An answer that nobody waits for does no harm."""
    player.plays[FrameType.PING] = lambda frame, writer: writer.writelines(
        [*pack(FrameType.PONG, 987), *pack(FrameType.PONG, frame.id), *pack(FrameType.PONG, frame.id)]
    )
    async with opened(player) as channel:
        for _ in range(2):
            assert (await channel.call(FrameType.PING, None, Deadline.after(20))).type == FrameType.PONG


async def test_a_caller_that_leaves_and_a_deadline_send_cancel(player):
    """CANCEL follows for a caller that left and for a deadline that passed; the deadline travels in milliseconds."""
    async with opened(player) as channel:
        task = asyncio.create_task(channel.call(FrameType.PREDICT, [], Deadline.after(20)))
        await eventually_async(lambda: FrameType.PREDICT in player.types())
        task.cancel()
        await eventually_async(lambda: FrameType.CANCEL in player.types())
        with pytest.raises(DeadlineExceeded):
            await channel.call(FrameType.PREDICT, [], Deadline.after(0.05))
        await eventually_async(lambda: player.types().count(FrameType.CANCEL) == 2)
    predicts = [(request, left_ms) for kind, request, left_ms in player.seen if kind is FrameType.PREDICT]
    cancels = [request for kind, request, _ in player.seen if kind is FrameType.CANCEL]
    assert [request for request, _ in predicts] == cancels
    assert 19_000 < predicts[0][1] <= 20_001
    assert 0 < predicts[1][1] <= 51


async def test_what_is_outstanding_is_bounded(player, monkeypatch):
    """One call over the bound is Overloaded at once."""
    monkeypatch.setattr(channel_module, "MAX_OUTSTANDING", 3)
    async with opened(player) as channel:
        calls = [asyncio.create_task(channel.call(FrameType.PREDICT, [], Deadline.after(20))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await channel.call(FrameType.PREDICT, [], Deadline.after(20))
        for call in calls:
            call.cancel()


async def test_a_worker_that_does_not_read_is_overloaded(tmp_path, monkeypatch):
    """When the worker stops reading and much is unsent, calls are Overloaded instead of piling up."""
    monkeypatch.setattr(channel_module, "WRITE_BUFFER_BYTES", 1 << 16)

    enough, left = asyncio.Event(), asyncio.Event()

    async def stall(reader, writer):
        await reader.readexactly(24)
        writer.writelines(pack(FrameType.HELLO, 1, HELLO))
        await enough.wait()
        writer.close()
        left.set()

    server = await asyncio.start_unix_server(stall, tmp_path / "s", limit=1024)
    channel = await Channel.open(tmp_path / "s", "test", Lost(), Deadline.after(10))
    part = Part("x", "UINT8", (1 << 23,), bytes(1 << 23))
    call = asyncio.create_task(channel.call(FrameType.PREDICT, [part], Deadline.after(20)))
    await eventually_async(lambda: channel._paused)
    with pytest.raises(Overloaded):
        await channel.call(FrameType.PREDICT, [], Deadline.after(20))
    channel.close()
    channel._transport.abort()
    with pytest.raises(WorkerLost):
        await call
    enough.set()
    await left.wait()
    server.close()
    await server.wait_closed()


def error(code, message="why"):
    """Return a play that answers ERROR."""
    return FrameType.ERROR, [text("code", code), text("message", message)]


@pytest.mark.parametrize(
    ("play", "expected"),
    [
        (error("invalid_input"), InvalidInput),
        (error("model_fault"), ModelFault),
        (error("deadline"), DeadlineExceeded),
        (error("overloaded"), Overloaded),
        (error("not_ready"), NotReady),
        (error("unsupported"), ModelFault),
        (error("a code of the future"), ModelFault),
        ((FrameType.ERROR, []), ModelFault),
        ((FrameType.ERROR, None), ModelFault),
        ((FrameType.PONG, []), ModelFault),
        ((FrameType.RESULT, None), ModelFault),
        ((FrameType.RESULT, [Part("y", "BYTES", (1,), b"\x09\0\0\0x")]), ModelFault),
    ],
)
async def test_answers_become_core_errors(player, play, expected):
    """Each ERROR code becomes the error that it means; an answer that cannot be read is the model's fault."""
    player.plays[FrameType.PREDICT] = play
    model = await WorkerModel.connect(source(player.path.parent, player.path.parent, {}))
    with pytest.raises(expected):
        await model.predict(held(1), ("y",), context())
    await model.close()


async def test_a_worker_is_asked_until_it_has_loaded(player):
    """DESCRIBE is repeated while it is answered not_ready."""
    asked = []

    def play(frame, writer):
        asked.append(frame.id)
        answer = (FrameType.LOADED, LOADED) if len(asked) > 2 else error("not_ready")
        writer.writelines(pack(answer[0], frame.id, answer[1]))

    player.plays[FrameType.DESCRIBE] = play
    model = await WorkerModel.connect(source(player.path.parent, player.path.parent, {}))
    assert [spec.name for spec in model.signature.inputs] == ["x", "hold_ms"]
    assert len(asked) == 3
    await model.close()


async def test_trace_and_wanted_outputs_travel(player):
    """The trace context travels beside the inputs; wanted outputs only where they are not all."""
    seen = []

    def play(frame, writer):
        seen.append(bytes(frame.payload))
        writer.writelines(pack(FrameType.RESULT, frame.id, []))

    player.plays[FrameType.PREDICT] = play
    model = await WorkerModel.connect(source(player.path.parent, player.path.parent, {}))
    call = context()
    call.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await model.predict(held(1), ("y",), call)
    await model.predict(held(1), (), context())
    assert b":traceparent" in seen[0]
    assert call.traceparent.encode() in seen[0]
    assert b":outputs" not in seen[0]
    assert b":outputs" in seen[1]
    assert b":traceparent" not in seen[1]
    await model.close()


async def test_another_signature_after_a_restart_is_not_served(tmp_path):
    """A worker that comes back with another signature does not count as back."""
    back = []
    async with playing(tmp_path) as player:
        model = await WorkerModel.connect(source(tmp_path, tmp_path, {}))
        model.watch(lambda _reason, _calls: None, lambda: back.append(True))
        player.plays[FrameType.DESCRIBE] = (FrameType.LOADED, [LOADED[0], table("outputs", [["z", "FP64", "-1"]], 3)])
        model._channel._transport.abort()
        await eventually_async(lambda: "another signature" in model._lost_reason)
        with pytest.raises(WorkerLost, match="another signature"):
            await model.predict(held(1), ("y",), context())
        assert not back
        await model.close()


async def test_loss_and_return_are_told(tmp_path):
    """A connection that breaks is told with the calls in flight, and its return once the worker is described again."""
    heard = []
    async with playing(tmp_path) as player:
        model = await WorkerModel.connect(source(tmp_path, tmp_path, {}))
        model.watch(lambda _reason, calls: heard.append(calls), lambda: heard.append("back"))
        calls = [asyncio.create_task(model.predict(held(1), ("y",), context())) for _ in range(2)]
        await eventually_async(lambda: player.types().count(FrameType.PREDICT) == 2)
        model._channel._transport.abort()
        assert {type(o) for o in await asyncio.gather(*calls, return_exceptions=True)} == {WorkerLost}
        await eventually_async(lambda: heard == [2, "back"])
        await model.close()
