"""Conversations with the HTTP door as bytes, held with a protocol class in memory: for comparing two of them.

Hypothesis draws the bytes, right and wrong, and where they are cut; nothing here knows what a right answer is.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import uvicorn
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import protocol_for
from gateway.limits import Limits
from tests.fake_backend import FakeBackend, echo, raising, simple
from turnout.core.errors import Overloaded
from turnout.core.tensor import Datatype

DATE = (b"date", b"Thu, 26 Nov 2026 00:00:00 GMT")
ROW = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1.5]}]}'
MANY = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[400],"data":[%b]}]}' % b",".join([b"0.25"] * 400)
BINARY = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"parameters":{"binary_data_size":8}}]}'
_IDENTITY = re.compile(rb"[0-9a-f]{32}")
_QUIET_TURNS = 6

BODIES = st.sampled_from(
    [ROW] * 6
    + [MANY, b"", b"{", b"[]", b'{"inputs":3}', ROW.replace(b"1.5", b"null"), ROW.replace(b"1.5", b'"a"'), ROW * 2]
    + [b'{"instances":[1.5,2.5]}', b" " * 3000, b'{"id":"7","inputs":[],"parameters":{"turnout":true}}']
)
PATHS = st.sampled_from(
    ["/v2/models/echo/infer"] * 8
    + ["/v2/models/echo/versions/1/infer", "/v2/models/echo/versions/9/infer", "/v2/models/nobody/infer"]
    + [
        "/v2/models/full/infer",
        "/v2/models/packed/infer",
        "/v2/models/simple/infer",
        "/v1/models/echo:predict",
        "/v2/models/e%63ho/infer",
    ]
    + ["/v2/models/echo/infer/", "/v2/models/echo/infer?a=b", "/v2/models/echo/infe", "/v2", "//v2/models/echo/infer"]
    + ["http://door/v2/models/echo/infer", "/v2/models/" + "a" * 600 + "/infer", "*"]
)
EXTRAS = st.lists(
    st.sampled_from(
        [
            *("turnout-request-id: mine", "turnout-request-id: no good", "turnout-deadline-ms: 5000", "traceparent: 0"),
            *("turnout-deadline-ms: soon", "accept-encoding: gzip", "Expect: 100-continue", "connection: close"),
            *("connection: keep-alive", "connection: upgrade, http2-settings\r\nupgrade: h2c", "content-encoding: br"),
            *("inference-header-content-length: 0", "inference-header-content-length: 9999", "x-cohort: beta"),
        ]
    ),
    max_size=2,
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Draw one request, framed rightly or wrongly."""
    method = draw(st.sampled_from(["POST"] * 9 + ["GET", "PUT", "HEAD"]))
    version = draw(st.sampled_from(["1.1"] * 9 + ["1.0"]))
    body = draw(BODIES)
    lines = [f"{method} {draw(PATHS)} HTTP/{version}", "host: door", *draw(EXTRAS)]
    framing = draw(st.sampled_from(["length"] * 9 + ["chunked", "binary", "none", "short", "long", "odd", "both"]))
    if framing == "binary":
        lines.append(f"inference-header-content-length: {len(BINARY)}")
        body = BINARY + b"\0\0\0\0\0\0\xf8\x3f"
    if framing in ("chunked", "both"):
        lines.append("transfer-encoding: chunked")
        cut = len(body) // 2
        parts = [part for part in (body[:cut], body[cut:]) if part]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n"
        body += draw(st.sampled_from([b"", b"", b"turnout-request-id: behind\r\n", b"x: y\r\n" * 20])) + b"\r\n"
    lengths = {"short": len(body) // 2, "long": len(body) + 3, "odd": "1x", "both": 5}
    if framing not in ("chunked", "none"):
        lines.append(f"Content-Length: {lengths.get(framing, len(body))}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Draw what a caller sends on one connection, cut anywhere."""
    sent = b"".join(draw(st.lists(messages(), min_size=1, max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        return [sent[at : at + 1] for at in range(len(sent))]
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    return [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < stop]


class Wire:
    """A transport in memory; keeps what is written until it is closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        """Keep the bytes."""
        if not self.closed:
            self.written += data

    def close(self) -> None:
        """Take no more."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """Tell whether it is closed."""
        return self.closed

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        """Know nothing."""
        return default

    def pause_reading(self) -> None:
        """Go on: the next piece comes when all is quiet."""

    resume_reading = pause_reading


def gateway(*, at_once: bool) -> FakeBackend:
    """Return the gateway in memory that conversations are held with."""
    full = raising(Overloaded("full"))
    models = {"echo": echo(Datatype.FP64), "simple": simple(), "full": full, "packed": echo(Datatype.FP64)}
    backend = FakeBackend(models, at_once=at_once)
    backend.crowd("packed")
    return backend


async def hold(pieces: Sequence[bytes], backend: FakeBackend, *, lane: bool) -> tuple[bytes, bool, list[str]]:
    """Send the pieces one by one and leave. Return the answer's bytes, whether we were cut off, and all outcomes."""
    door = HttpDoor(backend, Limits(body_bytes=2500), repository_control=False)
    protocol_class = protocol_for(door, backend, Limits(body_bytes=2500), lane=lane)
    settings = uvicorn.Config(
        door, http=protocol_class, ws="none", lifespan="off", log_config=None, server_header=False
    )
    settings.load()
    state = ServerState()
    state.default_headers = [DATE]
    protocol: Any = protocol_class(config=settings, server_state=state, app_state={})  # type: ignore[call-arg]
    wire = Wire()
    protocol.connection_made(wire)
    for piece in pieces:
        if not wire.closed:
            protocol.data_received(piece)
        await _quiet(state)
    cut_off = wire.closed
    protocol.connection_lost(None)
    await _quiet(state)
    if protocol.timeout_keep_alive_task is not None:
        protocol.timeout_keep_alive_task.cancel()
    await door({"type": "lifespan"}, _ending, _ignored)
    outcomes = sorted(backend.outcomes + [error.code for _, _, error in backend.refusals])
    return _IDENTITY.sub(b"<id>", wire.written), cut_off, outcomes


async def _quiet(state: ServerState) -> None:
    """Give the loop its turns until every task waits for more."""
    for _ in range(_QUIET_TURNS):
        await asyncio.sleep(0)


async def _ending() -> Any:
    return {"type": "lifespan.shutdown"}


async def _ignored(_: Any) -> None:
    return None
