"""One connection to a worker: many requests in flight, paired with their answers by id.

It must not know models: frames in, frames out. Writes of one turn of the loop go out together.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from adapters.worker.frames import (
    NO_DEADLINE,
    BadFrame,
    Buffer,
    Frame,
    FrameReader,
    FrameType,
    Part,
    pack,
    text,
    texts_of,
    unpack,
)
from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded, WorkerLost

MAX_OUTSTANDING: Final = 4096
WRITE_BUFFER_BYTES: Final = 64 * 1024 * 1024
_JOIN_BYTES: Final = 256 * 1024  # below it one copy is cheaper than many small writes
_LONGEST_MS: Final = NO_DEADLINE - 1


class WorkerError(Exception):
    """An ERROR frame: `code` of the protocol, and its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Channel(asyncio.Protocol):
    """A connection. `on_lost(reason, calls_in_flight)` is called once, when it ends."""

    def __init__(self, on_lost: Callable[[str, int], None]) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._last_id = 0
        self._out: list[Buffer] = []
        self._reason = ""
        self._paused = False
        self.worker = ""

    @classmethod
    async def open(cls, path: Path, peer: str, on_lost: Callable[[str, int], None], deadline: Deadline) -> "Channel":
        """Connect and exchange HELLO. Raises OSError, WorkerLost, WorkerError, DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(on_lost), str(path))
        try:
            answer = await channel.call(FrameType.HELLO, [text("peer", peer)], deadline)
            hello = {part.name: part for part in unpack(answer)}
            if answer.type != FrameType.HELLO or "worker" not in hello:
                raise WorkerError("bad_frame", "the worker did not answer HELLO with HELLO")
            channel.worker = texts_of(hello["worker"])[0]
        except BadFrame as error:
            channel.close()
            raise WorkerError("bad_frame", f"the worker's HELLO: {error}") from error
        except BaseException:
            channel.close()
            raise
        return channel

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None

    async def call(self, kind: FrameType, parts: Sequence[Part] | None, deadline: Deadline) -> Frame:
        """Send a request and return its answer.

        Raises WorkerError for an ERROR frame, WorkerLost when the connection ends first, DeadlineExceeded, Overloaded
        when too much is outstanding, ValueError for a frame over the limit. A caller that leaves, and a deadline that
        passes, send CANCEL.
        """
        transport = self._transport
        if transport is None:
            raise WorkerLost(f"the worker is gone: {self._reason}")
        if self._paused or len(self._pending) >= MAX_OUTSTANDING:
            raise Overloaded("the worker has too much outstanding")
        left_s = deadline.left_s
        if left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the model started")
        self._last_id = request = self._last_id + 1
        self._write(pack(kind, request, parts, min(int(left_s * 1000) + 1, _LONGEST_MS)))
        future: asyncio.Future[Frame] = self._loop.create_future()
        self._pending[request] = future
        timer = self._loop.call_later(left_s, self._expire, request)
        try:
            frame = await future
        finally:
            timer.cancel()
            if self._pending.pop(request, None) is not None and self._transport is not None:
                self._write(pack(FrameType.CANCEL, request))  # the caller left
        if frame.type == FrameType.ERROR:
            raise _error(frame)
        return frame

    def tell(self, kind: FrameType) -> None:
        """Send a frame that has no answer."""
        if self._transport is not None:
            self._write(pack(kind, 0))

    def close(self) -> None:
        """End the connection; calls in flight fail."""
        if self._transport is not None:
            self._reason = self._reason or "closed here"
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's callback)."""
        # Not to be checked by isinstance: uvloop's transports are of classes of their own.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Hand each answer to whoever waits for it; one for a caller that left is dropped (asyncio's callback)."""
        try:
            for frame in self._reader.feed(data):
                future = self._pending.pop(frame.id, None)
                if future is not None and not future.done():
                    future.set_result(frame)
        except BadFrame as error:
            self._reason = f"it sent no frame: {error}"
            self.close()

    def pause_writing(self) -> None:
        """Refuse requests while the worker does not read (asyncio's callback)."""
        self._paused = True

    def resume_writing(self) -> None:
        """Take requests again (asyncio's callback)."""
        self._paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything in flight at once (asyncio's callback)."""
        self._transport = None
        self._reason = self._reason or (f"connection lost: {exc}" if exc else "its connection ended")
        self._out.clear()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(WorkerLost(f"the worker was lost with the call in flight: {self._reason}"))
        self._on_lost(self._reason, len(pending))

    def _expire(self, request: int) -> None:
        future = self._pending.pop(request, None)
        if future is None or future.done():
            return
        self._write(pack(FrameType.CANCEL, request))
        future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))

    def _write(self, pieces: list[Buffer]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += pieces

    def _flush(self) -> None:
        pieces, self._out = self._out, []
        if self._transport is None or not pieces:
            return
        if sum(map(len, pieces)) <= _JOIN_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)


def _error(frame: Frame) -> WorkerError:
    try:
        parts = {part.name: part for part in unpack(frame)}
        return WorkerError(texts_of(parts["code"])[0], texts_of(parts["message"])[0])
    except (BadFrame, KeyError, IndexError) as error:
        return WorkerError("bad_frame", f"the worker's ERROR frame cannot be read: {error!r}")
