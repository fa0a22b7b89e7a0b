"""grpcio's core without grpcio's servers: calls come to the asyncio loop as events and are answered in the same turn.

Both servers of grpcio spend more on a call than all else here: grpc.aio on tasks and futures for each step, the other
one on hops between threads (docs/decisions/0009). The only module that knows grpcio's internal interface, `cygrpc`:
the operations and the completion queue that both servers are made of. Knows bytes and calls; nothing of our metadata,
methods or errors. All of it runs on the loop but `_watch`.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from grpc._cython import cygrpc

from turnout.core.clock import monotonic_s, wall_s

# A call and the message that came for it, None when there is none.
Received: TypeAlias = "Callable[[CoreCall, bytes | None], None]"
Metadata: TypeAlias = Sequence[tuple[str, str]]

# So many events are handled before the loop gets its turn: about five quick predictions.
_AT_ONCE: Final = 16
# So many calls may come between two looks without waiting inside grpcio.
_REQUESTED: Final = 16
_SWEEP_S: Final = 1.0
# A connection needs so long to close after its last call was cut, at most, and this share of the time to stop in.
_CUT_S: Final = 5.0
_CUT_SHARE: Final = 0.5
# While others wait, a message that takes so long is given up.
_HOGGING_S: Final = 1.0
# A caller that has left shows within so long.
_SETTLED_S: Final = 0.05
# Smaller answers than this are not counted: there are at most as many as calls.
_COUNTED_BYTES: Final = 16 * 1024
_NOW: Final = 0.0  # a deadline that is over
_NEVER_S: Final = 1e12  # grpcio names a far future where a caller set no deadline
_NO_FLAGS: Final = 0
_NOTHING: Final = cygrpc.CompletionType.queue_timeout

# Each object is for one call of one batch: it keeps what the core writes.
_ReceiveMessage: Final = cygrpc.ReceiveMessageOperation
_SendMetadata: Final = cygrpc.SendInitialMetadataOperation
_SendMessage: Final = cygrpc.SendMessageOperation
_SendStatus: Final = cygrpc.SendStatusFromServerOperation
_ReceiveClose: Final = cygrpc.ReceiveCloseOnServerOperation

_log = logging.getLogger(__name__)
# It writes a traceback for each value of metadata that is not UTF-8: any caller could fill the log. Such a value is
# read as Latin-1, and refused where it matters.
logging.getLogger(cygrpc.__name__).setLevel(logging.CRITICAL)


class CoreServer:
    """A server of grpcio's core whose calls come to `accept`, on the loop that started it.

    `body_s` is how long the message of a call with one message may take to come, `write_s` how long a caller may
    take to fetch the end of its call. At most `receiving` such messages are received at once: how much of one has come
    cannot be known. While others wait for that, one that takes over a second is given up. `hold` is told the bytes of
    big messages that wait to be fetched, and again, negative, when they are not held any more.
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        accept: "Callable[[CoreCall], None]",
        *,
        body_s: float,
        write_s: float,
        receiving: int,
        hold: Callable[[int], None],
    ) -> None:
        self.awaited: dict[CoreCall, float] = {}
        self.ending: dict[CoreCall, float] = {}
        self.hold = hold
        self._receiving = receiving
        self._postponed: deque[CoreCall] = deque()
        self._accept = accept
        self._body_s = body_s
        self._write_s = write_s
        self._queue = cygrpc.CompletionQueue()
        self._core = cygrpc.Server(tuple(options), False)
        self._core.register_completion_queue(self._queue)
        self._due = 0
        self._leaving = False
        self._gone = asyncio.Event()
        # Whose turn it is to look at the queue: held while the loop does.
        self._turn = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.TimerHandle | None = None

    def bind(self, address: str) -> int:
        """Listen on an address and return the port; 0 when it cannot be bound."""
        return int(self._core.add_http2_port(address.encode()))

    def start(self) -> None:
        """Take calls."""
        self._core.start()
        for _ in range(_REQUESTED):
            self._request()
        # A daemon: should nobody stop the server, the process can still end.
        threading.Thread(target=self._watch, name="grpc", daemon=True).start()
        self._sweep()

    async def stop(self, within_s: float) -> None:
        """Take no more calls, wait for those under way, cut what is left: all `within_s`."""
        cut_s = min(_CUT_S, within_s * _CUT_SHARE)
        self._leaving = True
        self._core.shutdown(self._queue, _nothing)
        self._due += 1
        try:
            async with asyncio.timeout(within_s - cut_s):
                await self._gone.wait()
        except TimeoutError:
            await self._cut(cut_s)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def begin(self, call: Any, operations: Sequence[Any], then: Callable[[Any], object]) -> None:
        """Begin operations of a call; `then` gets their event once all have ended."""
        call.start_server_batch(operations, then)
        self._due += 1

    def receive(self, call: "CoreCall") -> None:
        """Receive the one message of a call, in its turn."""
        if len(self.awaited) < self._receiving:
            self.awaited[call] = monotonic_s()
            call.begin_receiving()
        else:
            self._postponed.append(call)

    def received(self, call: "CoreCall") -> None:
        """Note that a message is awaited no more, and let the next ones come."""
        self.awaited.pop(call, None)
        while self._postponed and len(self.awaited) < self._receiving:
            self.receive(self._postponed.popleft())

    async def _cut(self, within_s: float) -> None:
        self._core.cancel_all_calls()
        try:
            async with asyncio.timeout(within_s):
                await self._gone.wait()
        except TimeoutError:
            _log.warning("gRPC connections did not close in time")

    def _request(self) -> None:
        self._core.request_call(self._queue, self._queue, self._arrived)
        self._due += 1

    def _arrived(self, event: Any) -> None:
        if event.success:  # else the server stops
            if not self._leaving:
                self._request()
            call = CoreCall(self, event)
            call.attempt(self._accept, call)

    def _watch(self) -> None:
        """Wait, on a thread, for the first event; the loop itself looks for those that follow."""
        while True:
            self._turn.acquire()
            if self._gone.is_set():
                return
            event = self._queue.poll()
            try:
                self._loop.call_soon_threadsafe(self._drain, event)
            except RuntimeError:
                return  # the loop is closed
            del event  # it would keep its call, and so the connection, open

    def _drain(self, event: Any) -> None:
        """Handle events until there are none, letting the loop do other work in between."""
        for _ in range(_AT_ONCE):
            self._due -= 1
            try:
                event.tag(event)
            except Exception:  # noqa: BLE001  the door would be shut for good
                _log.exception("a gRPC event failed")
            event = self._queue.poll(_NOW)
            if event.completion_type == _NOTHING:
                break
        else:
            self._loop.call_soon(self._drain, event)
            return
        if self._leaving and not self._due:
            self._core.destroy()
            self._gone.set()
        self._turn.release()

    def _sweep(self) -> None:
        """End calls whose message does not come, or whose end is not fetched."""
        now_s = monotonic_s()
        for call in _older(self.awaited, now_s - self._body_s):
            call.give_up(late=True)
        if self._postponed:
            for call in _older(self.awaited, now_s - _HOGGING_S)[: len(self._postponed)]:
                call.give_up(late=False)
        for call in _older(self.ending, now_s - self._write_s):
            del self.ending[call]
            call.let_go()
            call.cut()
        self._sweeping = self._loop.call_later(min(_SWEEP_S, self._body_s, self._write_s), self._sweep)


class CoreCall:
    """One call: its method and the caller's metadata. `over` once nothing can be sent any more.

    `late`: its message did not come in time. `crowded_out`: it was not waited for, since others waited.
    """

    __slots__ = (
        "_announced",
        "_call",
        "_held",
        "_left",
        "_received",
        "_server",
        "_until_s",
        "crowded_out",
        "late",
        "metadata",
        "method",
        "over",
    )

    def __init__(self, server: CoreServer, event: Any) -> None:
        self._server = server
        self._call = event.call
        details = event.call_details
        self.method: bytes = details.method
        self._until_s: float = details.deadline
        self.metadata: Sequence[tuple[str, str | bytes]] = event.invocation_metadata
        self.over = False
        self.late = False
        self.crowded_out = False
        self._held = 0
        self._announced = False
        self._received: Received | None = None
        self._left: Callable[[], object] | None = None

    @property
    def left_s(self) -> float | None:
        """The transport's time left; None where the caller set none."""
        return max(0.0, self._until_s - wall_s()) if self._until_s < _NEVER_S else None

    def receive(self, then: Received, *, timed: bool = True) -> None:
        """Have `then` called with the next message, or None; `timed` unless the caller may take as long as it likes."""
        self._received = then
        if timed:
            self._server.receive(self)
        else:
            self.begin_receiving()

    def begin_receiving(self) -> None:
        """Let the message come."""
        self._server.begin(self._call, (_ReceiveMessage(_NO_FLAGS),), self._came)

    def settle(self, then: Callable[[bool], object]) -> None:
        """Have `then` told, once, whether the caller has left; to be asked when there is no message."""
        left = False

        def tell(*, gone: bool) -> None:
            nonlocal left
            if not left:
                left = True
                timer.cancel()
                then(gone)

        timer = asyncio.get_running_loop().call_later(_SETTLED_S, lambda: tell(gone=False))
        self.watch(lambda: tell(gone=True))

    def watch(self, left: Callable[[], object]) -> None:
        """Have `left` called if the caller leaves before the end of the call."""
        self._left = left
        self._server.begin(self._call, (_ReceiveClose(_NO_FLAGS),), self._closed)

    def announce(self, metadata: Metadata) -> None:
        """Send metadata ahead of the first message."""
        if not self.over:
            self._announced = True
            self._server.begin(self._call, (_SendMetadata(metadata, _NO_FLAGS),), _nothing)

    def send(self, message: bytes, then: Callable[[], object]) -> None:
        """Send a message of a stream; `then` is called once there is room for the next."""
        if self.over:
            then()
            return
        hold, size = self._server.hold, len(message)

        def sent(_: Any) -> None:
            hold(-size)
            then()

        hold(size)
        self._server.begin(self._call, (_SendMessage(message, _NO_FLAGS),), sent)

    def finish(
        self, metadata: Metadata, message: bytes | None, code: int, text: str = "", trailing: Metadata | None = None
    ) -> None:
        """End the call: metadata unless they were announced, a last message, a status. Does nothing once it is over."""
        if self.over:
            return
        self.over = True
        operations = [_SendStatus(trailing, code, text.encode(errors="replace"), _NO_FLAGS)]
        if not self._announced:
            operations.append(_SendMetadata(metadata, _NO_FLAGS))
        if message is not None:
            operations.append(_SendMessage(message, _NO_FLAGS))
            if len(message) > _COUNTED_BYTES:
                self._held = len(message)
                self._server.hold(self._held)
        if self._left is None:
            operations.append(_ReceiveClose(_NO_FLAGS))
        server = self._server
        server.ending[self] = monotonic_s()
        server.begin(self._call, operations, self._ended)

    def attempt(self, step: Callable[..., object], *arguments: Any) -> None:
        """Do a step of the call; one that fails is logged and ends the call, nothing else."""
        try:
            step(*arguments)
        except Exception:  # noqa: BLE001  whatever it is, no other call must suffer
            _log.exception("a gRPC call failed")
            self.cut()

    def cut(self) -> None:
        """End the call without a word."""
        self.over = True
        self._call.cancel()

    def give_up(self, *, late: bool) -> None:
        """Wait no longer for the message: it took all its time, or others wait."""
        self.late, self.crowded_out = late, not late
        self._take(None)

    def let_go(self) -> None:
        """Count the answer's bytes no more."""
        if self._held:
            self._server.hold(-self._held)
            self._held = 0

    def _came(self, event: Any) -> None:
        self._take(event.batch_operations[0].message())

    def _take(self, message: bytes | None) -> None:
        self._server.received(self)
        received, self._received = self._received, None
        if received is not None:
            self.attempt(received, self, message)

    def _closed(self, _: Any) -> None:
        left, self._left = self._left, None
        if not self.over:
            self.over = True
            assert left is not None
            left()

    def _ended(self, _: Any) -> None:
        self._server.ending.pop(self, None)
        if self._held:
            self.let_go()


def _older(calls: dict[CoreCall, float], than_s: float) -> list[CoreCall]:
    """Return the calls, oldest first, that came before an instant."""
    found: list[CoreCall] = []
    for call, since_s in calls.items():
        if since_s > than_s:
            break
        found.append(call)
    return found


def _nothing(_: Any) -> None:
    """Take no note of an event."""
