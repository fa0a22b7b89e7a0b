"""Reads a request that came whole in one piece, without a Python call for each part of it. Answers nothing.

One parser serves all connections of a door: it is between two requests whenever this module is not at work. Its
callbacks are methods of built-in containers. Whatever is unusual about a request is left to the connection's own
parser, which reads the same bytes from the start.
"""

from types import SimpleNamespace
from typing import Final

import httptools

from gateway.doors.http_headers import CONTENT_ENCODING, CONTENT_LENGTH, Headers

_HEADING_END: Final = b"\r\n\r\n"
_VERSION: Final = b" HTTP/1.1\r\n"
_CONNECTION: Final = b"connection"
_STAYS: Final = b"keep-alive"
# Headers with which a request takes more than reading and answering.
_UNUSUAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade", CONTENT_ENCODING})
_MAX_LENGTH_DIGITS: Final = 6


class WholeRequests:
    """A parser for requests of up to `body_bytes` behind up to `header_bytes`."""

    def __init__(self, header_bytes: int, body_bytes: int) -> None:
        self._header_bytes = header_bytes
        self._body_bytes = body_bytes
        self._renew()

    def read(self, data: bytes) -> tuple[Headers, bytes] | bool:
        """Return headers and body of the one request that `data` is: HTTP/1.1, of known length, connection kept.

        Else tell whether it may become one with the bytes that are still to come.
        """
        end = data.find(_HEADING_END)
        lines = data.count(b"\r\n", 0, end + 2)
        # However the limit is counted, with a byte more for each line this is within it.
        if not 0 < end + lines <= self._header_bytes or data.find(_VERSION, 0, end + 2) < 0:
            return False
        bodies, received = self._bodies, self._headers
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._renew()
            return False
        headers = dict(zip(map(bytes.lower, received), received.values(), strict=True))
        length = self._length(headers)
        # A header line that is not in the container was there twice: what counts then is not for here.
        if length == 0 or len(headers) != lines - 1:
            self._renew()
            return False
        missing = end + len(_HEADING_END) + length - len(data)
        if missing or len(bodies) != 1:
            self._renew()
            return missing > 0
        body = bodies[0]
        bodies.clear()
        received.clear()
        return Headers(headers), body

    def _length(self, headers: dict[bytes, bytes]) -> int:
        """Return the body's length; 0 for a request that is not for here."""
        length = headers.get(CONTENT_LENGTH)
        if length is None or len(length) > _MAX_LENGTH_DIGITS or not length.isdigit():
            return 0
        if not _UNUSUAL.isdisjoint(headers) or headers.get(_CONNECTION, _STAYS).lower() != _STAYS:
            return 0
        size = int(length)
        return size if size <= self._body_bytes else 0

    def _renew(self) -> None:
        """Begin anew: the parser is somewhere in a request that it will not see the rest of."""
        self._bodies: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        callbacks = SimpleNamespace(on_header=self._headers.__setitem__, on_body=self._bodies.append)
        self._parser = httptools.HttpRequestParser(callbacks)
