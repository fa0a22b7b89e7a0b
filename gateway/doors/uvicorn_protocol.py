"""uvicorn's HTTP/1.1 protocol with our refusals: every answer is JSON with our headers, every phase has a bound.

uvicorn answers unreadable requests and its own overload in plain text, reads headers of any size for any time, and
tells nobody when a connection is lost. Knows bytes and connections; nothing of models or routes.
"""

import asyncio
import enum
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.caller_sockets import has_left
from gateway.doors.caller import LOST, Receive, Scope, Send
from gateway.doors.envelope import request_id
from gateway.doors.http_answer import end, error_parts, our_headers, start
from gateway.doors.http_headers import CONTENT_LENGTH, REQUEST_ID, Headers
from gateway.doors.interface import Backend
from gateway.limits import Limits
from turnout.core.clock import monotonic_s
from turnout.core.errors import DeadlineExceeded, InvalidInput, NotReady, Overloaded, TooLarge, TurnoutError

_HEADER_EXTRA_BYTES: Final = 4  # colon, space, line end
_PROTOCOL: Final = "http"
# So many connections beyond the bound are told why they are refused, and get so long to hear it.
_TURNED_AWAY: Final = 64
_TURNING_AWAY_S: Final = 1.0
# So often a connection that is not read is asked whether its caller has left.
_LOOK_S: Final = 0.1
_VERSIONS: Final = frozenset({"1.0", "1.1"})


class Phase(enum.Enum):
    """Where in its requests a connection is."""

    BETWEEN = enum.auto()
    HEADING = enum.auto()
    BODY = enum.auto()


class _Unreadable(Exception):
    """Stops the parser; the reason is kept by the protocol."""


class _Relay:
    """Stands between a parser and a connection, and passes nothing on of a heading that is only told again."""

    def __init__(self, connection: "DoorProtocol") -> None:
        self.passes = False
        self._connection = connection
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if self.passes:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.passes:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.passes:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.passes:
            self._connection.on_headers_complete()


class DoorProtocol(HttpToolsProtocol):
    """One connection. Subclasses carry, as class variables, what uvicorn's constructor has no place for."""

    backend: ClassVar[Backend]
    limits: ClassVar[Limits]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extensions = {LOST: self._tell_when_lost}
        self._on_lost: Callable[[], None] | None = None
        self._served: RequestResponseCycle | None = None
        self._asked = False
        self._phase = Phase.BETWEEN
        self._begun = 0
        self._data = b""
        self._unfinished_bytes = 0
        self._reason: TurnoutError | None = None
        self._refused = False
        self._parting: bytes | None = None
        self._heading_timer: asyncio.TimerHandle | None = None
        self._writing_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._leaving_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for the first request; a connection too many is told so, and closed."""
        super().connection_made(transport)
        if len(self.connections) <= self.limits.connections:
            self._await_heading()
        else:
            self._turn_away()

    def _turn_away(self) -> None:
        self._refused = True
        identity, error = request_id(None), NotReady("there are too many connections; come back later")
        self.backend.refused("", _PROTOCOL, error, identity, monotonic_s())
        if len(self.connections) > self.limits.connections + _TURNED_AWAY:
            self.transport.abort()
            return
        # Closed at once it would be reset under the request that comes, and the refusal lost.
        self.transport.write(self._error_bytes(error, identity))
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(_TURNING_AWAY_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this caller."""
        for timer in (self._heading_timer, self._writing_timer, self._linger_timer, self._leaving_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._disconnect()
        if self._on_lost is not None:
            self._on_lost()
        self._extensions = {}  # it holds us: a connection need not wait for the collector

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see that a heading neither grows nor takes its time without end."""
        if self._refused:
            return
        before, self._begun = self._phase, 0
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._phase is Phase.BODY and self.headers and self._headers_bytes() > self.limits.header_bytes:
            self._refuse(self._heading_too_long())
        if self._phase is not Phase.HEADING or self._refused:
            return
        # All of it belongs to this heading unless an earlier message ended in it; that much slack is allowed.
        if (before, self._begun) in ((Phase.HEADING, 0), (Phase.BETWEEN, 1)):
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > self.limits.header_bytes:
                self._refuse(self._heading_too_long())
                return
        if self._heading_timer is None:
            self._await_heading()

    def on_message_begin(self) -> None:
        """Begin a heading; what only the ASGI callable needs is made once it is to serve the request."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._asked = True
        self._phase = Phase.HEADING
        self._begun += 1
        self._unfinished_bytes = 0

    def on_headers_complete(self) -> None:
        """End a heading: the request starts."""
        if self._unfinished_bytes + len(self._data) > self.limits.header_bytes:
            self._measure_heading()
        if self._heading_timer is not None:
            self._heading_timer.cancel()
            self._heading_timer = None
        self._accept()  # raises for a path that cannot be read: then this is a heading still
        self._phase = Phase.BODY

    def _accept(self) -> None:
        """Begin to serve the request whose heading was read."""
        if self.parser.get_http_version() not in _VERSIONS:
            raise _Unreadable
        for name, value in self.headers:
            # The parser takes any list that ends in "chunked", and does not undo what stands before.
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._reason = InvalidInput("header transfer-encoding: only chunked is read here")
                raise _Unreadable
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect
        cast("dict[str, Any]", self.scope).update(headers=headers, extensions=self._extensions)
        super().on_headers_complete()
        self.headers = []  # what comes now is behind the body: it must not change what the request said
        if self._leaving_timer is None:
            self._look_whether_left()

    def on_message_complete(self) -> None:
        """End a body."""
        if self.parser.should_upgrade():
            return  # an offer to upgrade: whether a body follows is still to be seen
        self._phase = Phase.BETWEEN
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the connection, or part if that was decided meanwhile."""
        was_last = not self.pipeline
        super().on_response_complete()
        if self._parting is not None and was_last:
            self._part(self._parting)
        elif self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            # The answer came before the body's end. Closing now would reset the connection under the answer.
            self._linger_timer = self.loop.call_later(self.limits.linger_s, self.transport.close)

    def pause_writing(self) -> None:
        """Give the caller a bounded time to take what waits for it."""
        super().pause_writing()
        self._writing_timer = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller took enough of it."""
        super().resume_writing()
        if self._writing_timer is not None:
            self._writing_timer.cancel()
            self._writing_timer = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's own text
        """Refuse what the parser could not read."""
        self._refuse(self._reason or InvalidInput("the request is no readable HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        """Pass over an offer to speak something else, as Java's client makes with its first request.

        The parser stops behind the heading and takes the message for complete, whatever body follows. So a fresh one
        is told how the body is framed, and reads on.
        """
        offer = sys.exc_info()[1]
        assert offer is not None
        framing = [pair for pair in self.scope["headers"] if pair[0] in (CONTENT_LENGTH, b"transfer-encoding")]
        lines = [name + b": " + value + b"\r\n" for name, value in framing]
        relay = _Relay(self)
        self.parser = httptools.HttpRequestParser(relay)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.parser.feed_data(b"".join((self.scope["method"].encode(), b" / HTTP/1.1\r\nhost: x\r\n", *lines, b"\r\n")))
        relay.passes = True
        rest = self._data[offer.args[0] :]
        if rest:
            self.data_received(rest)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        if self.transport.is_closing():
            self._disconnect()
        super()._start_asgi_task(
            cycle, cast("ASGI3Application", self._overloaded) if app is service_unavailable else app
        )

    async def _overloaded(self, scope: Scope, _: Receive, send: Send) -> None:
        identity = request_id(Headers(dict(scope["headers"])).text(REQUEST_ID))
        error = Overloaded("too many connections or requests; come back later")
        self.backend.refused("", _PROTOCOL, error, identity, monotonic_s())
        status, pairs, body = error_parts(error, identity)
        await send(start(status, pairs + our_headers(identity, self.backend.generation, None, None)))
        await send(end(body))

    def _tell_when_lost(self, callback: Callable[[], None] | None) -> None:
        self._on_lost = callback
        if callback is None:
            return
        if self.transport.is_closing():
            self._disconnect()
            callback()
        elif not self.pipeline:
            self.flow.resume_reading()  # a caller that leaves is seen by reading; the body is here
        else:
            self._look_whether_left()

    def _look_whether_left(self) -> None:
        """End a connection whose caller has left: behind pipelined requests nothing is read, so nothing tells."""
        self._leaving_timer = None
        if self._on_lost is None or not self.flow.read_paused or self.transport.is_closing():
            return
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()
        else:
            self._leaving_timer = self.loop.call_later(_LOOK_S, self._look_whether_left)

    def _disconnect(self) -> None:
        """Have nothing more said to the request that is served: uvicorn tells only the last one that came."""
        if self._served is not None:
            self._served.disconnected = True

    def _measure_heading(self) -> None:
        """Stop the parser if the whole heading is over the limit."""
        if len(self.url) + self._headers_bytes() > self.limits.header_bytes:
            self._reason = self._heading_too_long()
            raise _Unreadable

    def _headers_bytes(self) -> int:
        return sum(len(name) + len(value) + _HEADER_EXTRA_BYTES for name, value in self.headers)

    def _heading_too_long(self) -> TooLarge:
        return TooLarge(f"request headers: are over the limit of {self.limits.header_bytes} bytes")

    def _await_heading(self) -> None:
        self._heading_timer = self.loop.call_later(self.limits.header_s, self._heading_late)

    def _heading_late(self) -> None:
        self._heading_timer = None
        if not self._asked:
            self.transport.close()
        else:
            self._refuse(DeadlineExceeded("the request's headers did not arrive in time"))

    def _refuse(self, error: TurnoutError) -> None:
        """Answer what cannot be read in its turn, then close."""
        self._refused = True
        identity = request_id(None)
        if self._phase is Phase.BODY and not self._take_back():
            self.transport.close()
            return
        if self._phase is not Phase.BODY or not self.cycle.disconnected:
            self.backend.refused("", _PROTOCOL, error, identity, monotonic_s())
        answer = self._error_bytes(error, identity)
        if self.cycle is None or self.cycle.response_complete or self.cycle.disconnected:
            self._part(answer)
        else:
            self._parting = answer  # behind the answers of the requests before it

    def _take_back(self) -> bool:
        """Take back the request whose body cannot be read; False when it has its answer already.

        One that runs sees its caller leave, and counts as that.
        """
        broken = self.cycle
        if broken.response_started:
            return False
        waiting = [pair for pair in self.pipeline if pair[0] is broken]
        if waiting:
            self.pipeline.remove(waiting[0])
        else:
            broken.disconnected = True
            broken.message_event.set()
        return True

    def _part(self, answer: bytes) -> None:
        self._parting = None
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _error_bytes(self, error: TurnoutError, identity: str) -> bytes:
        status, pairs, body = error_parts(error, identity)
        pairs += our_headers(identity, self.backend.generation, None, None)
        pairs += [pair for pair in self.server_state.default_headers if pair[0] != b"connection"]
        lines = [name + b": " + value + b"\r\n" for name, value in pairs]
        return b"".join((STATUS_LINE[status], *lines, b"connection: close\r\n\r\n", body))
