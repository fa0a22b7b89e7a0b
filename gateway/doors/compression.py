"""Content-encodings of HTTP bodies: bounded unpacking of what callers send, packing for those who ask."""

import gzip
import zlib
from typing import Final

from gateway.doors.http_headers import ACCEPT_ENCODING, CONTENT_ENCODING, Headers
from turnout.core.errors import InvalidInput, TooLarge, UnsupportedEncoding

READ_ENCODINGS: Final = b"gzip, deflate"
PACK_FROM_BYTES: Final = 1024
_PACK_LEVEL: Final = 1
_WINDOW_BITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def body_encoding(headers: Headers) -> bytes | None:
    """Return the body's encoding, None for a plain body. Raises UnsupportedEncoding for one that no door reads."""
    value = headers.raw.get(CONTENT_ENCODING)
    if value is None:
        return None
    encoding = value.strip().lower()
    if encoding in (b"", b"identity"):
        return None
    if encoding not in _WINDOW_BITS:
        shown = value[:64].decode("latin-1")
        raise UnsupportedEncoding(f"content-encoding '{shown}' is not read here; send gzip, deflate or none")
    return encoding


def unpack(body: bytes | bytearray, encoding: bytes, limit_bytes: int) -> bytes:
    """Return the unpacked body. Raises TooLarge as soon as it outgrows the limit, InvalidInput when it is broken."""
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    kind = encoding.decode()
    try:
        plain = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"request body: is not {kind} ({error})") from error
    if len(plain) > limit_bytes:
        raise TooLarge(f"request body: unpacks to more than the limit of {limit_bytes} bytes")
    if not stream.eof:
        raise InvalidInput(f"request body: the {kind} stream ends too early")
    if stream.unused_data:
        raise InvalidInput(f"request body: {len(stream.unused_data)} bytes are left over after the {kind} stream")
    return plain


def wants_gzip(headers: Headers) -> bool:
    """Tell whether the caller named gzip as an encoding that it takes."""
    value = headers.raw.get(ACCEPT_ENCODING)
    if value is None or b"gzip" not in value:
        return False
    for offer in value.split(b","):
        name, _, quality = offer.partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            return quality.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def pack(body: bytes) -> bytes:
    """Return the body as gzip, quick rather than small."""
    return gzip.compress(body, _PACK_LEVEL, mtime=0)
