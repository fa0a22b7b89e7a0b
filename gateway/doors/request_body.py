"""Receives HTTP bodies: bounded while they arrive, bounded all together, and big ones read off the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeAlias, TypeVar

from gateway.doors.caller import Caller, Message, Receive
from gateway.doors.compression import body_encoding, unpack
from gateway.doors.http_headers import CONTENT_LENGTH, JSON_LENGTH, Headers
from gateway.limits import KIB, Limits
from gateway.pressure import Holding, Pressure
from turnout.core.errors import Cancelled, TooLarge

Body: TypeAlias = bytes | bytearray | memoryview
Result = TypeVar("Result")

OFF_LOOP_BYTES: Final = 64 * KIB
_THREADS: Final = 2
_ALIGNMENT: Final = 8


class BodyIntake:
    """Takes the bodies of one door and hands each to its reader.

    A small body is read at once; a big or packed one on a thread. All that wait for either are bounded together: above
    the bound no new big body is begun, and those under way are read on once there is room.
    """

    def __init__(self, limits: Limits, pressure: Pressure) -> None:
        self._limits = limits
        self._pressure = pressure
        self._threads = ThreadPoolExecutor(_THREADS, "turnout-body")

    def close(self) -> None:
        """Let the threads go once they are idle."""
        self._threads.shutdown(wait=False)

    def holding(self) -> Holding:
        """Return what counts the bytes of one request; whoever asks for it releases it."""
        return Holding(self._pressure)

    async def take(
        self, receive: Receive, headers: Headers, caller: Caller, read: Callable[[Body], Result], holding: Holding
    ) -> Result:
        """Receive a body, unpack it and return what `read` makes of it. What is received is held.

        Raises TooLarge before more than the limit is received, Overloaded when too much is held already, Cancelled
        when the caller leaves, and what `read` raises. A slow body ends the task through `caller`.
        """
        declared = headers.raw.get(CONTENT_LENGTH)
        length = int(declared) if declared is not None and declared.isdigit() else OFF_LOOP_BYTES + 1
        if declared is not None and length > self._limits.body_bytes:
            raise self._too_large()
        if length > OFF_LOOP_BYTES:
            self._pressure.check_bytes()
        encoding = body_encoding(headers)
        timer = asyncio.get_running_loop().call_later(self._limits.body_s, caller.late)
        try:
            message = await receive()
            whole = message.get("body")
            if whole is None or message.get("more_body") or len(whole) > OFF_LOOP_BYTES or encoding is not None:
                reader = _Reader(read, encoding, self._limits.unpacked_bytes, headers)
                return await self._take_more(message, receive, caller, reader, timer, holding)
        finally:
            timer.cancel()
        holding.add(len(whole))
        return read(whole)

    async def _take_more(
        self,
        message: Message,
        receive: Receive,
        caller: Caller,
        reader: "_Reader[Result]",
        timer: asyncio.TimerHandle,
        holding: Holding,
    ) -> Result:
        # One buffer that grows: joining the parts in the end would need as much room again, and hold everybody up.
        received = bytearray(reader.pad)
        while True:
            if message["type"] == "http.disconnect":
                caller.gone = True
                raise Cancelled("the caller left before its body was complete")
            part = message.get("body", b"")
            if holding.size + len(part) > self._limits.body_bytes:
                raise self._too_large()
            received += part
            if not message.get("more_body"):
                break
            await holding.receive(len(part))
            message = await receive()
        holding.add(len(part))
        timer.cancel()
        if holding.size <= OFF_LOOP_BYTES and reader.encoding is None:
            return reader(received)
        return await asyncio.get_running_loop().run_in_executor(self._threads, reader, received)

    async def run(self, work: Callable[[bytes], Result], data: bytes) -> Result:
        """Return `work(data)`, done on a thread when the data is big."""
        if len(data) <= OFF_LOOP_BYTES:
            return work(data)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, data)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"request body: is over the limit of {self._limits.body_bytes} bytes")


class _Reader(Generic[Result]):
    """Unpacks a body that was received behind `pad` bytes, then reads it; may run on a thread."""

    def __init__(
        self, read: Callable[[Body], Result], encoding: bytes | None, unpacked_bytes: int, headers: Headers
    ) -> None:
        self.encoding = encoding
        self._read = read
        self._unpacked_bytes = unpacked_bytes
        length = headers.raw.get(JSON_LENGTH)
        self._has_tensors = length is not None
        # So many bytes in front bring the binary tensors behind the JSON to an aligned address: no second copy then.
        is_known = encoding is None and length is not None and length.isdigit() and len(length) < 18
        self.pad = -int(length or b"") % _ALIGNMENT if is_known else 0

    def __call__(self, received: bytearray) -> Result:
        if self.encoding is not None:
            return self._read(unpack(received, self.encoding, self._unpacked_bytes))
        if not self._has_tensors:
            return self._read(received)
        # Tensors are views of it, and no model may write into what another one is asked with.
        return self._read(memoryview(received).toreadonly()[self.pad :])
