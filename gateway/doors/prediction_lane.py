"""The quick way of a prediction: from the bytes that came straight to the codec, and the answer straight to the socket.

No ASGI messages and no task in between. The lane takes small plain predictions whose turn it is and that are here
whole, and leaves whatever needs more (a body that dawdles, a model that has to be waited for) to the ASGI callable,
which answers alike. Knows bytes and connections; nothing of models or routes.
"""

import asyncio
from functools import lru_cache
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.doors.http import HttpDoor
from gateway.doors.http_answer import lines_of
from gateway.doors.http_headers import Pair
from gateway.doors.http_predict import App, Response, Target
from gateway.doors.interface import Backend
from gateway.doors.request_body import OFF_LOOP_BYTES
from gateway.doors.uvicorn_protocol import DoorProtocol, Phase
from gateway.doors.whole_request import WholeRequests
from gateway.http_server import CONNECTION_CLOSE
from gateway.limits import Limits

# How long the rest of a body is waited for here.
_REST_OF_BODY_S: Final = 0.05
_KNOWN_URLS: Final = 1024
_MAX_URL_BYTES: Final = 512
_POST: Final = b"POST "


def protocol_for(door: HttpDoor, backend: Backend, limits: Limits, *, lane: bool = True) -> type[asyncio.Protocol]:
    """Return the protocol class of one door, for uvicorn's setting `http`; all by ASGI without the `lane`."""
    given: dict[str, Any] = {"backend": backend, "limits": limits}
    if not lane:
        return type("DoorProtocol", (DoorProtocol,), given)

    return type("LaneProtocol", (LaneProtocol,), {**given, "lane": _Lane(door, limits)})


class _Lane:
    """What all connections of a door share: predictions by their URL, one parser, the headers before all answers."""

    def __init__(self, door: HttpDoor, limits: Limits) -> None:
        self.predictions = door.predictions
        self.requests = WholeRequests(limits.header_bytes, min(OFF_LOOP_BYTES, limits.body_bytes))
        self.target = lru_cache(_KNOWN_URLS)(lambda url: _target(door, url))
        self.pairs: list[Pair] = []
        self.count = 0
        self.lines = b""
        self.leaves = False

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


class LaneProtocol(DoorProtocol):
    """One connection with a lane."""

    lane: ClassVar[_Lane]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = b""
        self._patience: asyncio.TimerHandle | None = None
        self._rest: App | None = None
        self._quiet_since_s = 0.0
        self._looks_quiet: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Answer what the lane takes, and leave everything else to the connection's parser."""
        if self._held:
            data = self._held + data
            self._held = b""
        cycle = self.cycle
        if (
            self._phase is not Phase.BETWEEN
            or (cycle is not None and not cycle.response_complete)
            or not data.startswith(_POST)
            or not self._takes(data)
        ):
            self._leave(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the lane: the ASGI callable counts callers that left."""
        if self._held:
            self._leave(self._held)
        if self._looks_quiet is not None:
            self._looks_quiet.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Begin to leave, as uvicorn has it: a request that is coming has its answer first."""
        if self._held:
            self._leave(self._held)
        super().shutdown()

    def _takes(self, data: bytes) -> bool:
        """Answer a prediction, or wait for the rest of it; False for anything that is not for the lane."""
        lane = self.lane
        target = lane.target(data[len(_POST) : data.find(b" ", len(_POST), _MAX_URL_BYTES)])
        if target is None or self.flow.write_paused or self._refused or self.limit_concurrency is not None:
            return False
        pairs = self.server_state.default_headers
        if lane.pairs is not pairs or lane.count != len(pairs):
            lane.dress(pairs)
        if lane.leaves:
            return False
        found = lane.requests.read(data)
        if not isinstance(found, tuple):
            return found and self._hold(data)
        outcome: Response | App | None = None
        if self.backend.pressure.presses:
            outcome = lane.predictions.shed(target, found[0])
        if outcome is None:
            outcome = lane.predictions.begin(target, *found)
        if isinstance(outcome, Response):
            self._write(outcome)
        else:
            self._rest = outcome
            self._leave(data)
        return True

    def _hold(self, data: bytes) -> bool:
        """Wait once, and not for long, for the rest of a body: many clients send heading and body apart.

        Not while something is pressed: the heading alone may tell that the request is shed.
        """
        if self._patience is not None or self.backend.pressure.presses:
            return False
        self._patience = self.loop.call_later(_REST_OF_BODY_S, self._late)
        self._held = data
        return True

    def _late(self) -> None:
        self._patience = None
        self._leave(self._held)

    def _leave(self, data: bytes) -> None:
        """Give what came to the connection's parser, and so to the ASGI callable."""
        self._held = b""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().data_received(data)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        rest, self._rest = self._rest, None
        super()._start_asgi_task(cycle, app if rest is None else cast("ASGI3Application", rest))

    def _write(self, response: Response) -> None:
        self.transport.write(
            b"".join((STATUS_LINE[response.status], self.lane.lines, response.lines, b"\r\n", response.body))
        )
        self.server_state.total_requests += 1
        self._quiet_since_s = self.loop.time()
        if self._looks_quiet is None:
            self._look_again(self.timeout_keep_alive)
        if not self._asked or self.timeout_keep_alive_task is not None or self._patience is not None:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Stop whatever waits for this request."""
        self._asked = True
        self._unset_keepalive_if_required()
        for timer in (self._heading_timer, self._patience):
            if timer is not None:
                timer.cancel()
        self._heading_timer = self._patience = None

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
        if self._held or self._phase is not Phase.BETWEEN or self.timeout_keep_alive_task is not None:
            return False
        return self.cycle is None or self.cycle.response_complete
