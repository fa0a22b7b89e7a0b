"""Prediction over gRPC: ModelInfer, and ModelStreamInfer as Triton has it.

Reads, asks the gateway behind the door, writes. A prediction for which nothing has to be waited for is answered within
the turn in which its message came. A call that its caller cancels is cancelled all the way down. Messages of many
elements are decoded on a thread.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gateway.doors import grpc_wire
from gateway.doors.envelope import (
    HEADER_DEADLINE_MS,
    caller_deadline,
    deadline_header_s,
    refuse_sequence,
    request_id,
    version_number,
)
from gateway.doors.grpc_call import Call, Stream, Work, brought, unforeseen
from gateway.doors.grpc_codec import InferMessage, InferRequest, error_response
from gateway.doors.grpc_core import CoreCall
from gateway.doors.interface import Answer, Backend
from gateway.limits import Limits
from turnout.core.clock import monotonic_s
from turnout.core.errors import Cancelled, DeadlineExceeded, NotReady, Overloaded, TurnoutError
from turnout.core.request import Prediction, PredictRequest
from turnout.core.status import shown_message
from turnout.core.traceparent import accepted
from turnout.core.wire import inference_pb2 as pb

PROTOCOL: Final = "grpc"
_DECODERS: Final = 2
_STREAM_ERROR: Final = pb.ModelStreamInferResponse.ERROR_MESSAGE_FIELD_NUMBER
_STREAM_ANSWER: Final = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class Exchange:
    """One prediction from its message to its answer's bytes.

    `left_s` is the transport's time when the message came; `request` is set once the router has it.
    """

    __slots__ = (
        "_streamed",
        "headers",
        "id",
        "left_s",
        "limit_bytes",
        "received_s",
        "request",
        "request_id",
        "route",
    )

    def __init__(self, call: Call, limit_bytes: int, *, index: int | None = None) -> None:
        self.request_id = call.request_id if index is None else request_id(f"{call.request_id}.{index}")
        self.headers: Mapping[str, str] = call.headers
        self.received_s = call.received_s if index is None else monotonic_s()
        self.left_s = call.left_s
        self.limit_bytes = limit_bytes
        self.route = self.id = ""
        self.request: PredictRequest | None = None
        self._streamed = index is not None

    def ask(self, received: InferRequest, version: int | None) -> PredictRequest:
        """Return what the router is asked. Raises InvalidInput for a deadline that is none."""
        refuse_sequence(received.parameters)
        headers = self.headers
        trace = headers.get("traceparent")
        received.limit_bytes, received.is_final = self.limit_bytes, self._streamed
        self.request = PredictRequest(
            route=self.route,
            version=version,
            inputs=received.inputs,
            outputs=received.outputs,
            protocol=PROTOCOL,
            request_id=self.request_id,
            received_s=self.received_s,
            headers=headers,
            parameters=received.parameters,
            id=self.id,
            deadline=caller_deadline(
                headers.get(HEADER_DEADLINE_MS), received.parameters, self.received_s, self.left_s
            ),
            traceparent=accepted(trace) if trace is not None else None,
            writer=received,
        )
        return self.request


def _bytes(prediction: Prediction) -> bytes:
    written: bytes = prediction.written
    return written


class Predictions:
    """The two predicting methods of one door."""

    def __init__(self, backend: Backend, limits: Limits, work: Work) -> None:
        self._backend = backend
        self._limits = limits
        self._work = work
        self._pressure = backend.pressure
        self._streams: set[asyncio.Task[None]] = set()
        self._winding_up = False
        self._ending = False
        self._decoders = ThreadPoolExecutor(_DECODERS, "turnout-message")

    def wind_up_streams(self) -> None:
        """End each open stream with its next answer after which nothing is under way."""
        self._winding_up = True

    def end_streams(self) -> None:
        """Read no more from open streams: each ends once what it has read is answered."""
        self._ending = True
        for reader in self._streams:
            reader.cancel()

    def close(self) -> None:
        """Let the threads go once they are idle."""
        self._decoders.shutdown(wait=False)

    def infer(self, core: CoreCall) -> None:
        """Answer one ModelInfer; while the process holds all it may, without its message."""
        if self._pressure.presses:
            try:
                self._pressure.check()
                self._pressure.check_bytes()
            except Overloaded as error:
                call = Call(core)
                self._backend.refused("", PROTOCOL, error, call.request_id, call.received_s)
                call.refuse(error, self._backend.generation)
                return
        core.receive(self._infer)

    def stream(self, core: CoreCall) -> None:
        """Answer one ModelStreamInfer: in the order asked, errors as messages, a bounded number under way."""
        self._work.start(core, self._stream(Stream(core, self._backend.generation, self._limits.write_s)))

    def _infer(self, core: CoreCall, message: bytes | None) -> None:
        call = Call(core)
        if message is None:
            self._settle(call)
            return
        if self._pressure.presses and self._shed(call, message):
            return
        exchange = Exchange(call, self._limits.message_bytes)
        try:
            answer = self._begin(exchange, message)
            if not isinstance(answer, Prediction):
                self._work.start(core, self._infer_later(call, exchange, answer))
                return
            written = _bytes(answer)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets our form of answer
            self._refuse(call, exchange, error)
        else:
            call.answer(written, answer.generation, answer.version, answer.fallback)

    def _settle(self, call: Call) -> None:
        """End a call without a message: as left by its caller where that shows, else refused."""
        core, exchange = call.core, Exchange(call, self._limits.message_bytes)

        def ended(gone: bool) -> None:  # noqa: FBT001  the only thing that is told
            try:
                if gone and call.left_s == 0:
                    raise DeadlineExceeded("the deadline passed before the message came")
                if gone:
                    raise Cancelled("the caller left before its message came")
                brought(core, None)
            except TurnoutError as error:
                self._refuse(call, exchange, error)

        if core.late or core.crowded_out:
            ended(False)
        else:
            core.settle(ended)

    def _shed(self, call: Call, message: bytes) -> bool:
        """Refuse a call for which there is no room by what its message begins with; tell whether it was refused."""
        asked = grpc_wire.leading_texts(message, 2)
        if asked is None:
            return False
        route, number = asked
        try:
            version = version_number(number, route)
            header_ms = call.headers.get(HEADER_DEADLINE_MS)
            left_s = deadline_header_s(header_ms) if header_ms is not None else None
        except TurnoutError:
            return False  # it is told so the long way
        if call.left_s is not None:
            left_s = call.left_s if left_s is None else min(left_s, call.left_s)
        shed = self._backend.shed(route, version, call.headers, PROTOCOL, call.request_id, call.received_s, left_s)
        if shed is None:
            return False
        call.refuse(shed.error, self._backend.generation, shed.version)
        return True

    async def _infer_later(self, call: Call, exchange: Exchange, answer: Coroutine[Any, Any, Prediction]) -> None:
        try:
            prediction = await answer
            written = _bytes(prediction)
        except Exception as error:  # noqa: BLE001  as above
            self._refuse(call, exchange, error)
        else:
            call.answer(written, prediction.generation, prediction.version, prediction.fallback)

    def _refuse(self, call: Call, exchange: Exchange, error: Exception) -> None:
        """End a call with the exception being handled."""
        failure = self._failure(exchange, error)
        request = exchange.request
        if request is None:
            call.refuse(failure, self._backend.generation)
        else:
            call.refuse(failure, request.generation or self._backend.generation, request.picked)

    async def _stream(self, call: Stream) -> None:
        call.announce()
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        slots = asyncio.Semaphore(self._limits.stream_requests)
        under_way: set[asyncio.Task[bytes]] = set()
        reader = asyncio.create_task(self._receive(call, slots, answers, under_way))
        reader.add_done_callback(lambda _: answers.put_nowait(None))
        self._streams.add(reader)
        if self._ending:
            reader.cancel()
        last: bytes | None = None
        try:
            while (answer := await answers.get()) is not None:
                message = await answer
                if self._winding_up and await _nothing_follows(reader, answers):
                    last = message
                    break
                await call.write(message)
                slots.release()
        finally:
            self._streams.discard(reader)
            for task in (reader, *under_way):
                task.cancel()
            await asyncio.gather(reader, *under_way, return_exceptions=True)
        call.end(NotReady("the server is draining; open the stream again") if reader.cancelled() else None, last)

    async def _receive(
        self,
        call: Stream,
        slots: asyncio.Semaphore,
        answers: "asyncio.Queue[asyncio.Task[bytes] | None]",
        under_way: "set[asyncio.Task[bytes]]",
    ) -> None:
        """Start an answer for each message that comes, until the caller has no more."""
        for index in itertools.count():
            await slots.acquire()
            message = await call.read()
            if message is None:
                return
            exchange = Exchange(call, self._limits.message_bytes, index=index)
            task = asyncio.create_task(self._answer(exchange, message))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            answers.put_nowait(task)

    async def _answer(self, exchange: Exchange, message: bytes) -> bytes:
        """Return one ModelStreamInferResponse, whatever happens."""
        try:
            answer = self._begin(exchange, message)
            prediction = answer if isinstance(answer, Prediction) else await answer
            return b"".join(grpc_wire.delimited(_STREAM_ANSWER, _bytes(prediction)))
        except Exception as error:  # noqa: BLE001  as for a single prediction
            failure = self._failure(exchange, error)
        text = shown_message(failure, exchange.request_id).encode()
        about = error_response(exchange.id, exchange.request_id, exchange.request)
        return b"".join((*grpc_wire.delimited(_STREAM_ERROR, text), *grpc_wire.delimited(_STREAM_ANSWER, about)))

    def _begin(self, exchange: Exchange, message: bytes) -> Answer:
        """Read the message and ask the router; what has to be waited for is left to await. Raises core errors.

        What is left must be awaited: it holds the message.
        """
        size = len(message)
        self._pressure.check_bytes(size)
        infer = InferMessage(message)
        exchange.route, exchange.id = infer.route, infer.id
        version = version_number(infer.version, infer.route)
        if infer.many_elements:
            return self._wait(size, self._decoded(exchange, infer, version))
        answer = self._backend.predict(exchange.ask(infer.decode(), version))
        return answer if isinstance(answer, Prediction) else self._wait(size, answer)

    def _wait(self, size: int, rest: Coroutine[Any, Any, Prediction]) -> Coroutine[Any, Any, Prediction]:
        """Hold a message, from now on, until its answer is there."""
        self._pressure.hold(size)
        return self._held(size, rest)

    async def _held(self, size: int, rest: Coroutine[Any, Any, Prediction]) -> Prediction:
        try:
            return await rest
        finally:
            self._pressure.hold(-size)

    async def _decoded(self, exchange: Exchange, infer: InferMessage, version: int | None) -> Prediction:
        try:
            received = await asyncio.get_running_loop().run_in_executor(self._decoders, infer.decode)
        except asyncio.CancelledError:
            self._note(exchange, Cancelled("the caller left"))
            raise
        answer = self._backend.predict(exchange.ask(received, version))
        return answer if isinstance(answer, Prediction) else await answer

    def _failure(self, exchange: Exchange, error: Exception) -> TurnoutError:
        """Return what the caller is told of the exception being handled; have it counted unless the router has."""
        failure = error if isinstance(error, TurnoutError) else unforeseen(exchange.request_id)
        self._note(exchange, failure)
        return failure

    def _note(self, exchange: Exchange, failure: TurnoutError) -> None:
        """Have a request counted that never reached the router."""
        if exchange.request is None:
            self._backend.refused(exchange.route, PROTOCOL, failure, exchange.request_id, exchange.received_s)


async def _nothing_follows(reader: "asyncio.Task[None]", answers: "asyncio.Queue[asyncio.Task[bytes] | None]") -> bool:
    """Read no more where all that was read is answered; tell whether that is so."""
    if not answers.empty():
        return False
    reader.cancel()
    await asyncio.wait({reader})
    await asyncio.sleep(0)  # by now the queue holds the reader's end, behind what it may have read at the last moment
    return answers.qsize() == 1 and reader.cancelled()
