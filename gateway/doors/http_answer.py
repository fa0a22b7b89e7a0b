"""What every HTTP answer has in common: our headers, and errors as `{"error": …}` with the table's status."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from gateway.doors.caller import Message
from gateway.doors.compression import READ_ENCODINGS
from gateway.doors.envelope import HEADER_FALLBACK, HEADER_GENERATION, HEADER_REQUEST_ID, HEADER_VERSION
from gateway.doors.http_headers import CONTENT_LENGTH, CONTENT_TYPE, Pair
from gateway.doors.interface import Shed
from turnout.core.errors import MethodNotAllowed, NotReady, Overloaded, TurnoutError, UnsupportedEncoding
from turnout.core.ids import VersionRef
from turnout.core.status import shown_message, status_of
from turnout.core.tensor import Buffer

JSON: Final[Pair] = (CONTENT_TYPE, b"application/json")
OCTETS: Final[Pair] = (CONTENT_TYPE, b"application/octet-stream")
GZIP: Final[Pair] = (b"content-encoding", b"gzip")

_REQUEST_ID: Final = HEADER_REQUEST_ID.encode()
_GENERATION: Final = HEADER_GENERATION.encode()
_VERSION: Final = HEADER_VERSION.encode()
_FALLBACK: Final = HEADER_FALLBACK.encode()
_KNOWN_VERSIONS: Final = 256

_ENCODER: Final = msgspec.json.Encoder()


def our_headers(request_id: str, generation: int, version: VersionRef | None, fallback: str | None) -> list[Pair]:
    """Return the headers that say which request this was and who answered it."""
    return pairs_of(our_lines(request_id, generation, version, fallback))


def our_lines(request_id: str, generation: int, version: VersionRef | None, fallback: str | None) -> bytes:
    """Return the same as they go over the wire."""
    lines = b"%b: %b\r\n%b: %d\r\n" % (_REQUEST_ID, request_id.encode(), _GENERATION, generation)
    if version is not None:
        lines += _version_line(version)
    if fallback is not None:
        lines += b"%b: %b\r\n" % (_FALLBACK, fallback.encode())
    return lines


def lines_of(pairs: Iterable[Pair]) -> bytes:
    """Return headers as they go over the wire."""
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


def pairs_of(lines: bytes) -> list[Pair]:
    """Return the headers of `lines_of`, one by one."""
    found: list[Pair] = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        found.append((name, value))
    return found


@lru_cache(_KNOWN_VERSIONS)
def _version_line(version: VersionRef) -> bytes:
    return b"%b: %b\r\n" % (_VERSION, str(version).encode())


def error_parts(error: TurnoutError, request_id: str) -> tuple[int, list[Pair], bytes]:
    """Return status, headers of the error's own, and the body."""
    pairs = [JSON]
    if isinstance(error, Overloaded | NotReady):
        pairs.append((b"retry-after", b"%d" % error.retry_after_s))
    elif isinstance(error, MethodNotAllowed):
        pairs.append((b"allow", ", ".join(error.allowed).encode()))
    elif isinstance(error, UnsupportedEncoding):
        pairs.append((b"accept-encoding", READ_ENCODINGS))
    body = _ENCODER.encode({"error": shown_message(error, request_id)})
    pairs.append((CONTENT_LENGTH, b"%d" % len(body)))
    return status_of(error).http, pairs, body


@lru_cache(_KNOWN_VERSIONS)
def shed_parts(shed: Shed, generation: int) -> tuple[int, bytes, bytes]:
    """Return status, header lines and body of what sheds many requests: all but each one's id."""
    status, pairs, body = error_parts(shed.error, "")
    ours = our_headers("", generation, shed.version, None)[1:]
    return status, lines_of([*pairs, *ours]), body


def start(status: int, pairs: list[Pair]) -> Message:
    """Return the ASGI message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": pairs}


def piece(body: Buffer) -> Message:
    """Return the ASGI message with a part of the body that others follow."""
    return {"type": "http.response.body", "body": body, "more_body": True}


def end(body: Buffer) -> Message:
    """Return the ASGI message with the whole body, or its last part."""
    return {"type": "http.response.body", "body": body}
