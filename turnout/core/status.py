"""The one table from error codes to HTTP status, gRPC status and metric outcome. Doors read it and decide nothing."""

import enum
from typing import Final

import msgspec

from turnout.core.errors import ErrorCode, TurnoutError


class GrpcCode(enum.IntEnum):
    """Canonical gRPC status numbers, kept here so that the table needs no grpc import."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Outcome(enum.StrEnum):
    """Label values of `turnout_requests_total{outcome}`."""

    OK = "ok"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    OVERLOADED = "overloaded"
    FAULT = "fault"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"


class Status(msgspec.Struct, frozen=True):
    """How one kind of failure looks on each door and in the metrics."""

    http: int
    grpc: GrpcCode
    outcome: Outcome


STATUS: Final[dict[ErrorCode, Status]] = {
    ErrorCode.INVALID_INPUT: Status(400, GrpcCode.INVALID_ARGUMENT, Outcome.INVALID),
    ErrorCode.UNSUPPORTED_ENCODING: Status(415, GrpcCode.INVALID_ARGUMENT, Outcome.INVALID),
    ErrorCode.UNIMPLEMENTED: Status(501, GrpcCode.UNIMPLEMENTED, Outcome.INVALID),
    ErrorCode.UNAUTHENTICATED: Status(401, GrpcCode.UNAUTHENTICATED, Outcome.DENIED),
    ErrorCode.FORBIDDEN: Status(403, GrpcCode.PERMISSION_DENIED, Outcome.DENIED),
    ErrorCode.NOT_FOUND: Status(404, GrpcCode.NOT_FOUND, Outcome.NOT_FOUND),
    ErrorCode.METHOD_NOT_ALLOWED: Status(405, GrpcCode.UNIMPLEMENTED, Outcome.INVALID),
    ErrorCode.CONFLICT: Status(409, GrpcCode.FAILED_PRECONDITION, Outcome.CONFLICT),
    ErrorCode.TOO_LARGE: Status(413, GrpcCode.RESOURCE_EXHAUSTED, Outcome.TOO_LARGE),
    ErrorCode.OVERLOADED: Status(429, GrpcCode.RESOURCE_EXHAUSTED, Outcome.OVERLOADED),
    ErrorCode.NOT_READY: Status(503, GrpcCode.UNAVAILABLE, Outcome.UNAVAILABLE),
    ErrorCode.FAILING: Status(503, GrpcCode.UNAVAILABLE, Outcome.UNAVAILABLE),
    ErrorCode.WORKER_LOST: Status(503, GrpcCode.UNAVAILABLE, Outcome.UNAVAILABLE),
    ErrorCode.DEADLINE: Status(504, GrpcCode.DEADLINE_EXCEEDED, Outcome.DEADLINE),
    ErrorCode.CANCELLED: Status(499, GrpcCode.CANCELLED, Outcome.CANCELLED),
    ErrorCode.MODEL_FAULT: Status(500, GrpcCode.INTERNAL, Outcome.FAULT),
    ErrorCode.INTERNAL: Status(500, GrpcCode.INTERNAL, Outcome.FAULT),
}


def status_of(error: TurnoutError) -> Status:
    """Return how `error` looks to callers and in the metrics."""
    return STATUS[error.code]


# A gRPC status text travels in a trailer, of which clients take 8 KiB; it triples what is not plain ASCII.
_SHOWN_BYTES: Final = 2048


def shown_message(error: TurnoutError, request_id: str) -> str:
    """Return the text for the caller, cut to what both doors can carry; causes of faults stay in the log."""
    if error.code is ErrorCode.MODEL_FAULT:
        return f"the model failed on this request (request id {request_id})"
    if error.code is ErrorCode.INTERNAL:
        return f"internal error (request id {request_id})"
    if len(error.message) * 4 <= _SHOWN_BYTES:
        return error.message
    text = error.message.encode(errors="replace")
    return error.message if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES].decode(errors="ignore") + "…"
