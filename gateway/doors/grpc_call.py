"""What every gRPC call has in common: the caller's metadata in, our metadata out, errors by the one status table.

Status numbers come from `turnout.core.status`; nothing here decides what is an error.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc

from gateway.doors.envelope import (
    HEADER_FALLBACK,
    HEADER_GENERATION,
    HEADER_REQUEST_ID,
    HEADER_VERSION,
    request_id,
)
from turnout.core.clock import monotonic_s
from turnout.core.errors import Internal, NotReady, Overloaded, TurnoutError
from turnout.core.ids import VersionRef
from turnout.core.status import shown_message, status_of

# grpcio ships no types: the context of a call, as grpc.aio hands it to a method.
Context: TypeAlias = Any
Unary: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]

RETRY_AFTER: Final = "retry-after"
_NOT_READY_RETRY_S: Final = 1
# grpc.aio takes plain numbers too, but knows 16 only as UNKNOWN.
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)


class Call:
    """One call: when it came, its text metadata by lower-case name (of a repeated one the last), its request id."""

    __slots__ = ("context", "headers", "received_s", "request_id")

    def __init__(self, context: Context) -> None:
        self.received_s = monotonic_s()
        self.context = context
        self.headers: dict[str, str] = {
            name: value for name, value in context.invocation_metadata() if isinstance(value, str)
        }
        self.request_id = request_id(self.headers.get(HEADER_REQUEST_ID))

    async def announce(self, generation: int, version: VersionRef | None = None, fallback: str | None = None) -> None:
        """Send our metadata ahead of the answer."""
        pairs = [(HEADER_REQUEST_ID, self.request_id), (HEADER_GENERATION, str(generation))]
        if version is not None:
            pairs.append((HEADER_VERSION, str(version)))
        if fallback is not None:
            pairs.append((HEADER_FALLBACK, fallback))
        await self.context.send_initial_metadata(pairs)

    async def refuse(self, error: TurnoutError, generation: int, version: VersionRef | None = None) -> bytes:
        """End the call with the error's status and text, and return what a unary method must return then."""
        await self.announce(generation, version)
        self.end(error)
        return b""

    def end(self, error: TurnoutError) -> None:
        """Set the error's status, text and trailing metadata; the call ends when its method returns."""
        if isinstance(error, Overloaded):
            self.context.set_trailing_metadata(((RETRY_AFTER, str(error.retry_after_s)),))
        elif isinstance(error, NotReady):
            self.context.set_trailing_metadata(((RETRY_AFTER, str(_NOT_READY_RETRY_S)),))
        self.context.set_code(_CODES[status_of(error).grpc])
        self.context.set_details(shown_message(error, self.request_id))


def unforeseen(request_id: str) -> Internal:
    """Log the exception being handled, and return the error that the caller gets for it."""
    _log.exception("request %s failed", request_id)
    return Internal("unforeseen")


def unary(method: Callable[[bytes], Awaitable[bytes]], generation: Callable[[], int]) -> Unary:
    """Return `method`, from serialised message to serialised answer, as grpc.aio calls it; errors become statuses."""

    async def handle(message: bytes, context: Context) -> bytes:
        call = Call(context)
        try:
            answer = await method(message)
        except TurnoutError as error:
            return await call.refuse(error, generation())
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            return await call.refuse(unforeseen(call.request_id), generation())
        await call.announce(generation())
        return answer

    return handle
