"""What every gRPC call has in common: the caller's metadata in, our metadata out, errors by the one status table.

Status numbers come from `turnout.core.status`; nothing here decides what is an error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from gateway.doors.envelope import (
    HEADER_FALLBACK,
    HEADER_GENERATION,
    HEADER_REQUEST_ID,
    HEADER_VERSION,
    request_id,
)
from gateway.doors.grpc_core import CoreCall
from gateway.doors.interface import Backend
from turnout.core.clock import monotonic_s
from turnout.core.errors import Cancelled, DeadlineExceeded, Internal, InvalidInput, NotReady, Overloaded, TurnoutError
from turnout.core.ids import VersionRef
from turnout.core.status import GrpcCode, shown_message, status_of

# Takes one call of its method; called within the loop's turn in which the call came.
Method: TypeAlias = Callable[[CoreCall], None]

RETRY_AFTER: Final = "retry-after"

_log = logging.getLogger(__name__)


class Call:
    """One call: when its message came, its text metadata by lower-case name (of a repeated one the last), its id."""

    __slots__ = ("core", "headers", "left_s", "received_s", "request_id")

    def __init__(self, core: CoreCall) -> None:
        self.received_s = monotonic_s()
        self.core = core
        self.left_s = core.left_s
        self.headers: dict[str, str] = {name: value for name, value in core.metadata if isinstance(value, str)}
        self.request_id = request_id(self.headers.get(HEADER_REQUEST_ID))

    def answer(
        self, message: bytes, generation: int, version: VersionRef | None = None, fallback: str | None = None
    ) -> None:
        """End the call with its one answer."""
        self.core.finish(self._metadata(generation, version, fallback), message, GrpcCode.OK)

    def refuse(
        self, error: TurnoutError, generation: int, version: VersionRef | None = None, last: bytes | None = None
    ) -> None:
        """End the call with the error's status, text and trailing metadata, after a `last` message of a stream."""
        retry_s = error.retry_after_s if isinstance(error, Overloaded | NotReady) else None
        self.core.finish(
            self._metadata(generation, version),
            last,
            status_of(error).grpc,
            shown_message(error, self.request_id),
            None if retry_s is None else ((RETRY_AFTER, str(retry_s)),),
        )

    def _metadata(
        self, generation: int, version: VersionRef | None = None, fallback: str | None = None
    ) -> list[tuple[str, str]]:
        pairs = [(HEADER_REQUEST_ID, self.request_id), (HEADER_GENERATION, str(generation))]
        if version is not None:
            pairs.append((HEADER_VERSION, str(version)))
        if fallback is not None:
            pairs.append((HEADER_FALLBACK, fallback))
        return pairs


class Stream(Call):
    """A call of several messages. Its caller has `write_s` seconds to make room for each answer."""

    __slots__ = ("_generation", "_write_s")

    def __init__(self, core: CoreCall, generation: int, write_s: float) -> None:
        super().__init__(core)
        self._generation = generation
        self._write_s = write_s

    def announce(self) -> None:
        """Send our metadata ahead of the answers."""
        self.core.announce(self._metadata(self._generation))

    async def read(self) -> bytes | None:
        """Return the next message, None when there are no more."""
        came: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.core.receive(lambda _, message: _tell(came, message), timed=False)
        return await came

    async def write(self, message: bytes) -> None:
        """Send an answer, and wait until there is room for the next. Raises Cancelled when that takes too long."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.core.send(message, lambda: _tell(sent, None))
        try:
            async with asyncio.timeout(self._write_s):
                await sent
        except TimeoutError:
            self.core.cut()
            raise Cancelled("the caller does not take its answers") from None

    def end(self, error: TurnoutError | None = None, last: bytes | None = None) -> None:
        """End the stream, well or with an error; a `last` answer travels with the end."""
        if error is None:
            self.core.finish(self._metadata(self._generation), last, GrpcCode.OK)
        else:
            self.refuse(error, self._generation, last=last)


class Work:
    """Calls that take more than a turn of the loop: each is a task, which is cancelled when its caller leaves."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, core: CoreCall, work: Coroutine[Any, Any, None]) -> None:
        """Have the rest of a call done; a call that is not ended by then is cut."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(core, done))
        # Not at once: a task that is cancelled before its first step runs nothing, not even what counts it.
        core.watch(lambda: loop.call_soon(task.cancel))

    async def ended(self, within_s: float) -> None:
        """Wait for what is left, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    def _done(self, core: CoreCall, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Cancelled):
            _log.error("a gRPC call failed", exc_info=error)
        if not core.over:
            core.cut()


def brought(core: CoreCall, message: bytes | None) -> bytes:
    """Return the one message of a call. Raises DeadlineExceeded, Overloaded or InvalidInput when there is none."""
    if message is not None:
        return message
    if core.crowded_out:
        raise Overloaded("too many messages are being received, and this one took too long")
    if core.late:
        raise DeadlineExceeded("the request message did not arrive in time")
    raise InvalidInput("request message: there is none, or it cannot be read")


def unforeseen(request_id: str) -> Internal:
    """Log the exception being handled, and return the error that the caller gets for it."""
    _log.exception("request %s failed", request_id)
    return Internal("unforeseen")


def unary(method: Callable[[bytes], Awaitable[bytes]], backend: Backend, work: Work) -> Method:
    """Return `method`, from serialised message to serialised answer, as a door's method; errors become statuses."""

    async def answer(call: Call, message: bytes | None) -> None:
        try:
            written = await method(brought(call.core, message))
        except TurnoutError as error:
            call.refuse(error, backend.generation)
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            call.refuse(unforeseen(call.request_id), backend.generation)
        else:
            call.answer(written, backend.generation)

    return lambda core: core.receive(lambda core, message: work.start(core, answer(Call(core), message)))


def _tell(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():  # else nobody waits any more
        future.set_result(value)
