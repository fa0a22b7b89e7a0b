"""The quick way of a prediction: from uvicorn's parser straight to the codec, and the answer straight to the socket.

No ASGI messages and no task in between. The lane takes small plain predictions whose turn it is, and gives whatever
turns out to need more (a body that dawdles, a model that has to be waited for) to the ASGI callable, which answers
alike. Knows bytes and connections; nothing of models or routes.
"""

import asyncio
from functools import lru_cache
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.doors.http import HttpDoor
from gateway.doors.http_headers import CONTENT_ENCODING, CONTENT_LENGTH, Headers
from gateway.doors.http_predict import App, Predictions, Response, Target
from gateway.doors.interface import Backend
from gateway.doors.request_body import OFF_LOOP_BYTES
from gateway.doors.uvicorn_protocol import DoorProtocol, Phase
from gateway.http_server import CONNECTION_CLOSE
from gateway.limits import Limits
from turnout.core.errors import TurnoutError

# How long the rest of a body is waited for here; many clients send heading and body apart.
_REST_OF_BODY_S: Final = 0.05
# So many requests of one read are answered before the loop gets its turn.
_AT_ONCE: Final = 16
_KNOWN_URLS: Final = 1024
_MAX_URL_BYTES: Final = 512
_MAX_LENGTH_DIGITS: Final = 6


def protocol_for(door: HttpDoor, backend: Backend, limits: Limits, *, lane: bool = True) -> type[asyncio.Protocol]:
    """Return the protocol class of one door, for uvicorn's setting `http`; all by ASGI without the `lane`."""
    given: dict[str, Any] = {"backend": backend, "limits": limits}
    if not lane:
        return type("DoorProtocol", (DoorProtocol,), given)

    @lru_cache(_KNOWN_URLS)
    def target(url: bytes) -> Target | None:
        return door.target(unquote(httptools.parse_url(url).path.decode("ascii")))

    return type(
        "LaneProtocol", (LaneProtocol,), {**given, "predictions": door.predictions, "target": staticmethod(target)}
    )


class _Taken:
    """A request on the lane, until its body is whole; `shed` if it has its answer already and the body is dropped."""

    __slots__ = ("headers", "parts", "shed", "target")

    def __init__(self, target: Target, headers: Headers, *, shed: bool) -> None:
        self.target = target
        self.headers = headers
        self.shed = shed
        self.parts: list[bytes] = []


class LaneProtocol(DoorProtocol):
    """One connection with a lane. `target` tells predictions by their URL."""

    predictions: ClassVar[Predictions]
    target: ClassVar[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: _Taken | None = None
        self._rest: App | None = None
        self._answered = 0
        self._patience: asyncio.TimerHandle | None = None
        self._quiet_since_s = 0.0
        self._looks_quiet: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; a body on the lane that is not whole by then has little time left, however it drips in."""
        self._answered = 0
        before = self._taken
        super().data_received(data)
        if self._taken is before:
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._taken is not None:
            patience_s = self.limits.linger_s if self._taken.shed else _REST_OF_BODY_S
            self._patience = self.loop.call_later(patience_s, self._leave)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the lane: the ASGI callable counts callers that left."""
        for timer in (self._patience, self._looks_quiet):
            if timer is not None:
                timer.cancel()
        self._leave()
        super().connection_lost(exc)

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        if self._taken is None:
            super().on_body(body)
        elif not self._taken.shed:
            self._taken.parts.append(body)

    def on_message_complete(self) -> None:
        """Answer a request on the lane, or find who does."""
        taken = self._taken
        if taken is None:
            super().on_message_complete()
            return
        self._taken = None
        self._phase = Phase.BETWEEN
        if taken.shed:
            return
        parts = taken.parts
        outcome = self.predictions.begin(taken.target, taken.headers, parts[0] if len(parts) == 1 else b"".join(parts))
        if isinstance(outcome, Response):
            self._write(outcome)
        else:
            self._rest = outcome
            super()._accept()
            super().on_message_complete()

    def shutdown(self) -> None:
        """Begin to leave, as uvicorn has it: a request that is on the lane has its answer first."""
        self._leave()
        super().shutdown()

    def _accept(self) -> None:
        self._taken = self._take()
        if self._taken is None:
            super()._accept()

    def _take(self) -> _Taken | None:
        """Return the request if the lane takes it: a small plain prediction on an idle connection that stays."""
        if self.parser.get_method() != b"POST" or len(self.url) > _MAX_URL_BYTES:
            return None
        target = self.target(self.url)
        if target is None or not self._is_idle() or self.expect_100_continue:
            return None
        if (
            self.parser.should_upgrade()
            or not self.parser.should_keep_alive()
            or self.parser.get_http_version() != "1.1"
        ):
            return None
        headers = Headers(dict(self.headers))
        length = headers.raw.get(CONTENT_LENGTH)
        if length is None or CONTENT_ENCODING in headers.raw or len(length) > _MAX_LENGTH_DIGITS:
            return None
        if not length.isdigit() or not 0 < int(length) <= min(OFF_LOOP_BYTES, self.limits.body_bytes):
            return None
        shed = self.predictions.shed(target, headers) if self.backend.pressure.presses else None
        if shed is not None:
            self._write(shed)
        return _Taken(target, headers, shed=shed is not None)

    def _is_idle(self) -> bool:
        """Tell whether an answer could be written right now, and the connection stays for more."""
        return (
            self._is_free()
            and self._answered < _AT_ONCE
            and not self.flow.write_paused
            and self.limit_concurrency is None
            and CONNECTION_CLOSE not in self.server_state.default_headers
        )

    def _is_free(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _leave(self) -> None:
        """Give the request on the lane to the ASGI callable, with what came of its body."""
        taken, self._taken = self._taken, None
        if taken is None:
            return
        if taken.shed:
            self.transport.close()
            return
        super()._accept()
        for part in taken.parts:
            super().on_body(part)

    def _refuse(self, error: TurnoutError) -> None:
        shed = self._taken is not None and self._taken.shed
        self._leave()
        if not shed:  # else it has its answer
            super()._refuse(error)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        rest, self._rest = self._rest, None
        super()._start_asgi_task(cycle, app if rest is None else cast("ASGI3Application", rest))

    def _write(self, response: Response) -> None:
        content = [STATUS_LINE[response.status]]
        for name, value in self.server_state.default_headers:
            content += (name, b": ", value, b"\r\n")
        content += (response.lines, b"\r\n", response.body)
        self.transport.write(b"".join(content))
        self._answered += 1
        self.server_state.total_requests += 1
        self._quiet_since_s = self.loop.time()
        if self._looks_quiet is None:
            self._look_again(self.timeout_keep_alive)

    def _look_again(self, in_s: float) -> None:
        self._looks_quiet = self.loop.call_later(in_s, self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        """Close a connection that has been quiet for too long: one timer for all requests costs less than one each."""
        self._looks_quiet = None
        left_s = self._quiet_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_again(left_s)
        elif self._phase is Phase.BETWEEN and self._is_free() and self.timeout_keep_alive_task is None:
            self.transport.close()
