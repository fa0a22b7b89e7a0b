"""The quick way of a prediction: from the bytes that came straight to the codec, and the answer straight to the socket.

No ASGI messages in between, and no task but for a model that has to be waited for. The lane takes small plain
predictions whose turn it is and that are here whole, and leaves whatever needs more (a body that dawdles, pipelines) to
the ASGI callable, which answers alike. Knows bytes and connections; nothing of models or routes.
"""

import asyncio
import logging
from collections import deque
from functools import lru_cache
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.doors.caller import Caller
from gateway.doors.http import HttpDoor
from gateway.doors.http_answer import lines_of
from gateway.doors.http_headers import Pair
from gateway.doors.http_predict import Later, Response, Target
from gateway.doors.interface import Backend
from gateway.doors.request_body import OFF_LOOP_BYTES
from gateway.doors.uvicorn_protocol import DoorProtocol, Phase
from gateway.doors.whole_request import WholeRequests
from gateway.http_server import CONNECTION_CLOSE
from gateway.limits import Limits
from turnout.core.clock import monotonic_s

_log = logging.getLogger(__name__)

# How long the rest of a body is waited for here.
_REST_OF_BODY_S: Final = 0.05
_KNOWN_URLS: Final = 1024
_MAX_URL_BYTES: Final = 512
# So many are answered before the first answer is sent: about a millisecond of quick models.
_AT_ONCE: Final = 16
_POST: Final = b"POST "
_CLOSE_LINE: Final = lines_of([CONNECTION_CLOSE])


def protocol_for(door: HttpDoor, backend: Backend, limits: Limits, *, lane: bool = True) -> type[asyncio.Protocol]:
    """Return the protocol class of one door, for uvicorn's setting `http`; all by ASGI without the `lane`."""
    given: dict[str, Any] = {"backend": backend, "limits": limits}
    if not lane:
        return type("DoorProtocol", (DoorProtocol,), given)

    return type("LaneProtocol", (LaneProtocol,), {**given, "lane": _Lane(door, limits)})


class _Lane:
    """What all connections of a door share: predictions by their URL, one parser, the headers before all answers.

    And the turn. What came in one turn of the loop is answered together, and then sent together: a system call between
    two requests empties the processor's caches, and costs more than either.
    """

    def __init__(self, door: HttpDoor, limits: Limits) -> None:
        self.predictions = door.predictions
        self.requests = WholeRequests(limits.header_bytes, min(OFF_LOOP_BYTES, limits.body_bytes))
        self.target = lru_cache(_KNOWN_URLS)(lambda url: _target(door, url))
        self.pairs: list[Pair] = []
        self.count = 0
        self.lines = b""
        self.leaves = False
        self._arrived: deque[LaneProtocol] = deque()
        self._answers: list[tuple[asyncio.Transport, bytes]] = []
        self._turns = False

    def arrive(self, connection: "LaneProtocol") -> None:
        """Have a connection take its turn once the loop has read from all that have something to say."""
        self._arrived.append(connection)
        if not self._turns:
            self._turns = True
            connection.loop.call_soon(self._turn, connection.loop)

    def answer(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Keep an answer until the turn ends."""
        self._answers.append((transport, answer))

    def send(self) -> None:
        """Send what was answered."""
        answers, self._answers = self._answers, []
        for transport, answer in answers:
            try:
                transport.write(answer)
            except Exception:  # noqa: BLE001  whatever a broken connection says, the answers behind it go out
                _log.exception("an answer could not be sent")
                transport.abort()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let so many connections have their turn that the first answer does not wait for long."""
        try:
            for _ in range(min(len(self._arrived), _AT_ONCE)):
                connection = self._arrived.popleft()
                try:
                    connection.take_turn()
                except Exception:  # noqa: BLE001  as loops do for what is called by a transport
                    _log.exception("a connection failed")
                    connection.transport.abort()
            self.send()
        finally:  # whatever ends this turn, there is another for who came
            self._turns = bool(self._arrived)
            if self._turns:
                loop.call_soon(self._turn, loop)

    def dress(self, pairs: list[Pair]) -> None:
        """Take the server's headers, which change every second.

        `leaves` tells whether its connections are asked to go elsewhere.
        """
        self.pairs = pairs
        self.count = len(pairs)
        self.lines = lines_of(pairs)
        self.leaves = CONNECTION_CLOSE in pairs


def _target(door: HttpDoor, url: bytes) -> Target | None:
    try:
        return door.target(unquote(httptools.parse_url(url).path.decode("ascii")))
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        return None


class _Signal:
    """Stands for the event that tells an ASGI callable of bodies and departures: a lane's request needs neither."""

    def set(self) -> None:
        """Tell nobody."""


class _Waiting(RequestResponseCycle):
    """What a connection sees of a request of the lane that waits for its answer: one that is whole and under way."""

    def __init__(self) -> None:  # not uvicorn's: there are no messages
        self.message_event = cast("asyncio.Event", _SIGNAL)
        self.disconnected = False
        self.keep_alive = True
        self.more_body = False
        self.response_started = False
        self.response_complete = False


_SIGNAL: Final = _Signal()


class LaneProtocol(DoorProtocol):
    """One connection with a lane."""

    lane: ClassVar[_Lane]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arrived = b""
        self._target: Target | None = None
        self._since_s = 0.0
        self._held = b""
        self._has_held = False
        self._patience: asyncio.TimerHandle | None = None
        self._quiet_since_s = 0.0
        self._looks_quiet: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Have a prediction wait for its turn; leave everything else to the connection's parser."""
        if self._arrived:
            self._arrived += data
            return
        if self._held:
            data = self._held + data
            self._held = b""
        cycle = self.cycle
        if self._phase is Phase.BETWEEN and (cycle is None or cycle.response_complete) and data.startswith(_POST):
            # Not found is -1, and so no URL: what the caller sends without end must not be remembered as one.
            url = data[len(_POST) : max(0, data.find(b" ", len(_POST), _MAX_URL_BYTES))]
            self._target = self.lane.target(url)
            if self._target is not None and not self._refused:
                self._stop_waiting()
                self._arrived = data
                self._since_s = monotonic_s()
                self.lane.arrive(self)
                return
        self._leave(data)

    def eof_received(self) -> None:
        """Answer first what came before the end."""
        self._hurry()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the lane: the ASGI callable counts callers that left."""
        if self._arrived:
            arrived, self._arrived = self._arrived, b""
            self._leave(arrived)
        if self._held:
            self._leave(self._held)
        if self._looks_quiet is not None:
            self._looks_quiet.cancel()
            self._looks_quiet = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Begin to leave, as uvicorn has it: a request that is coming has its answer first."""
        self._hurry()
        if self._held:
            self._leave(self._held)
        super().shutdown()

    def take_turn(self) -> None:
        """Answer what came, if that has not been done in a hurry."""
        if self._arrived:
            arrived, self._arrived = self._arrived, b""
            if not self._takes(arrived):
                self._leave(arrived)

    def _hurry(self) -> None:
        """Take the turn now: it is the last."""
        if self._arrived:
            self.take_turn()
            self.lane.send()

    def _takes(self, data: bytes) -> bool:
        """Answer a prediction, or wait for the rest of it; False for anything that is not for the lane."""
        lane, target = self.lane, self._target
        if target is None or self.flow.write_paused or self.limit_concurrency is not None:
            return False
        pairs = self.server_state.default_headers
        if lane.pairs is not pairs or lane.count != len(pairs):
            lane.dress(pairs)
        if lane.leaves:
            return False
        found = lane.requests.read(data)
        if not isinstance(found, tuple):
            return found and self._hold(data)
        outcome: Response | Later | None = None
        if self.backend.pressure.presses:
            outcome = lane.predictions.shed(target, found[0])
        if outcome is None:
            outcome = lane.predictions.begin(target, *found, self._since_s)
        if isinstance(outcome, Response):
            self._write(outcome)
        else:
            self._wait(outcome)
        return True

    def _hold(self, data: bytes) -> bool:
        """Wait once, and not for long, for the rest of a body: many clients send heading and body apart.

        Not while something is pressed: the heading alone may tell that the request is shed.
        """
        if self._has_held or self.backend.pressure.presses:
            return False
        self._has_held = True
        self._patience = self.loop.call_later(_REST_OF_BODY_S, self._late)
        self._held = data
        return True

    def _late(self) -> None:
        self._patience = None
        if self._held:
            self._leave(self._held)

    def _leave(self, data: bytes) -> None:
        """Give what came to the connection's parser, and so to the ASGI callable."""
        self._held = b""
        self._has_held = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().data_received(data)

    def _wait(self, later: Later) -> None:
        """Have a request answered later; what comes meanwhile is for the connection's parser, and queues behind it."""
        self._has_held = False
        self.cycle = self._served = waiting = _Waiting()
        task = self.loop.create_task(self._finish(waiting, later))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _finish(self, waiting: _Waiting, later: Later) -> None:
        task = asyncio.current_task()
        assert task is not None
        caller = Caller(task)
        self._tell_when_lost(caller.left)
        try:
            response = await self.lane.predictions.finish(later, caller)
            self._tell_when_lost(None)
            if self.flow.write_paused and not waiting.disconnected:
                await self.flow.drain()
        except asyncio.CancelledError:
            self.transport.abort()  # the server has no more time
            raise
        if not waiting.disconnected:
            self._end(waiting, response)

    def _end(self, waiting: _Waiting, response: Response) -> None:
        """Write an answer that was waited for, and go on with the connection as uvicorn does."""
        pairs = self.server_state.default_headers
        stays = waiting.keep_alive and CONNECTION_CLOSE not in pairs
        close = b"" if waiting.keep_alive or CONNECTION_CLOSE in pairs else _CLOSE_LINE
        lines = (STATUS_LINE[response.status], lines_of(pairs), response.lines, close, b"\r\n", response.body)
        self.transport.write(b"".join((*lines, *response.raws)))
        waiting.response_complete = True
        if not stays:
            self.transport.close()
        self.on_response_complete()

    def _write(self, response: Response) -> None:
        lines = (STATUS_LINE[response.status], self.lane.lines, response.lines, b"\r\n", response.body)
        self.lane.answer(self.transport, b"".join((*lines, *response.raws)))
        self._has_held = False
        self.server_state.total_requests += 1
        self._quiet_since_s = self.loop.time()
        if self._looks_quiet is None:
            self._look_again(self.timeout_keep_alive)

    def _stop_waiting(self) -> None:
        """Stop whatever waits for something to come."""
        self._asked = True
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self._heading_timer is not None:
            self._heading_timer.cancel()
            self._heading_timer = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _look_again(self, in_s: float) -> None:
        self._looks_quiet = self.loop.call_later(in_s, self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        """Close a connection that has been quiet for too long: one timer for all requests costs less than one each."""
        self._looks_quiet = None
        left_s = self._quiet_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_again(left_s)
        elif self._is_quiet():
            self.transport.close()

    def _is_quiet(self) -> bool:
        """Tell whether nothing is under way, and no other timer minds the quiet."""
        if self._held or self._arrived or self._phase is not Phase.BETWEEN or self.timeout_keep_alive_task is not None:
            return False
        return self.cycle is None or self.cycle.response_complete
