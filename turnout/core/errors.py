"""Every failure that Turnout names, as one tree. No status numbers here: they live in `status.py`.

TurnoutError
├── InvalidInput            the request is wrong: body, datatype, shape, unknown tensor
│   └── NonFinite           a number that the datatype cannot hold
├── UnsupportedEncoding     a content-encoding that the door does not read
├── Unimplemented           an RPC that exists in no contract of ours
├── Unauthenticated         no token, or a bad one
├── Forbidden               known caller, not allowed
├── NotFound                unknown route, model, version or path
├── MethodNotAllowed        the path exists, the method does not
├── Conflict                the state forbids it: managed by a file, stale generation
├── TooLarge                over a limit in bytes
├── Overloaded              a bound is reached; `retry_after_s` says when to come back
├── NotReady                loading, draining, no routes yet
│   ├── WorkerLost          the model's process died with the call in flight
│   └── Failing             one call of the model after another failed: it rests for a while
├── DeadlineExceeded        the caller's time is over
├── Cancelled               the caller left
├── ModelFault              the model raised, or its answer breaks its signature
└── Internal                anything unforeseen
"""

import enum
from typing import ClassVar


class ErrorCode(enum.StrEnum):
    """Closed set of failure kinds; `status.py` maps each to both protocols."""

    INVALID_INPUT = "invalid_input"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    UNIMPLEMENTED = "unimplemented"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    OVERLOADED = "overloaded"
    NOT_READY = "not_ready"
    WORKER_LOST = "worker_lost"
    FAILING = "failing"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    MODEL_FAULT = "model_fault"
    INTERNAL = "internal"


class Blame(enum.StrEnum):
    """Who is at fault; an abort of a canary reads only `VARIANT`."""

    CALLER = "caller"
    GATEWAY = "gateway"
    VARIANT = "variant"
    NOBODY = "nobody"


class TurnoutError(Exception):
    """Base of the tree. `message` is written for the caller; `status.py` says of which codes it is shown."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    blame: ClassVar[Blame] = Blame.GATEWAY
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(TurnoutError):
    """The request is wrong; the message names the tensor or field and the fix."""

    code = ErrorCode.INVALID_INPUT
    blame = Blame.CALLER


class NonFinite(InvalidInput):
    """A number is NaN, infinite, or too large for its datatype where that is not allowed."""


class UnsupportedEncoding(TurnoutError):
    """The body's content-encoding is none that the door reads."""

    code = ErrorCode.UNSUPPORTED_ENCODING
    blame = Blame.CALLER


class Unimplemented(TurnoutError):
    """An RPC that this server does not offer."""

    code = ErrorCode.UNIMPLEMENTED
    blame = Blame.CALLER


class Unauthenticated(TurnoutError):
    """No token, or a bad one."""

    code = ErrorCode.UNAUTHENTICATED
    blame = Blame.CALLER


class Forbidden(TurnoutError):
    """The caller may not do this."""

    code = ErrorCode.FORBIDDEN
    blame = Blame.CALLER


class NotFound(TurnoutError):
    """Unknown route, model, version or path."""

    code = ErrorCode.NOT_FOUND
    blame = Blame.CALLER


class MethodNotAllowed(TurnoutError):
    """The path exists, the method does not; `allowed` lists those that do."""

    code = ErrorCode.METHOD_NOT_ALLOWED
    blame = Blame.CALLER

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class Conflict(TurnoutError):
    """The present state forbids the change."""

    code = ErrorCode.CONFLICT
    blame = Blame.CALLER


class TooLarge(TurnoutError):
    """A body, message or header is over its limit in bytes."""

    code = ErrorCode.TOO_LARGE
    blame = Blame.CALLER


class Overloaded(TurnoutError):
    """A bound is reached and the work was shed before it started."""

    code = ErrorCode.OVERLOADED
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(TurnoutError):
    """Loading, draining, or no routes yet."""

    code = ErrorCode.NOT_READY
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, retry_after_s)


class WorkerLost(NotReady):
    """The model's process died with the call in flight."""

    code = ErrorCode.WORKER_LOST
    blame = Blame.VARIANT


class Failing(NotReady):
    """One call of the model after another failed: it is asked no more until a trial succeeds."""

    code = ErrorCode.FAILING
    blame = Blame.VARIANT


class DeadlineExceeded(TurnoutError):
    """The caller's time is over."""

    code = ErrorCode.DEADLINE


class Cancelled(TurnoutError):
    """The caller left before the answer."""

    code = ErrorCode.CANCELLED
    blame = Blame.NOBODY


class ModelFault(TurnoutError):
    """The model raised, or answered what its signature does not allow."""

    code = ErrorCode.MODEL_FAULT
    blame = Blame.VARIANT


class Internal(TurnoutError):
    """A fault of the gateway itself; callers get a fixed text and the request id."""
