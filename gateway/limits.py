"""Every bound of the doors, in one frozen value. Sizes end in `_bytes`, durations in `_s`. Reads nothing itself."""

from typing import Final

import msgspec

from turnout.core.bounds import Count, Seconds, Size, Total

KIB: Final = 1024
MIB: Final = 1024 * KIB


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the doors take before they refuse.

    `body_bytes`: an HTTP body as it travels. `unpacked_bytes`: the same after gzip or deflate. `message_bytes`: a
    gRPC message. `header_bytes`: an HTTP request line with its headers, and gRPC metadata. `nesting`: depth of JSON.
    `held_requests`, `held_rows`, `held_bytes`: requests of one process that wait or run, their rows, and the bytes of
    their bodies and messages, of bodies still being received and of gRPC answers that nobody has taken yet; above
    them new requests are shed, and bodies wait to be read on. `connections`: HTTP connections of one process, and
    gRPC connections. `connection_calls`: calls at once on one gRPC connection; `stream_requests`:
    requests under way on one gRPC stream.
    `header_s`, `body_s`, `write_s`: how long a caller may take to send its headers, to send its body, and to take
    an answer that is waiting for it. `linger_s`: how long the rest of a refused body is read and dropped, so that the
    caller sees the refusal.
    """

    body_bytes: Size = 64 * MIB
    unpacked_bytes: Size = 64 * MIB
    message_bytes: Size = 64 * MIB
    header_bytes: Size = 64 * KIB
    nesting: Count = 100
    held_requests: Count = 16_384
    held_rows: Count = 1 << 20
    held_bytes: Total = 512 * MIB
    connections: Count = 8192
    connection_calls: Count = 1024
    stream_requests: Count = 16
    header_s: Seconds = 30.0
    body_s: Seconds = 60.0
    write_s: Seconds = 60.0
    linger_s: Seconds = 5.0
