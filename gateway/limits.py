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
    `held_bytes`: all HTTP bodies that are being received or read at once, and all gRPC messages that wait for their
    answers; above it new ones are shed. `connection_calls`: calls at once on one gRPC connection; `stream_requests`:
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
    held_bytes: Total = 512 * MIB
    connection_calls: Count = 1024
    stream_requests: Count = 16
    header_s: Seconds = 30.0
    body_s: Seconds = 60.0
    write_s: Seconds = 60.0
    linger_s: Seconds = 5.0
