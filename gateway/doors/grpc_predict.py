"""Prediction over gRPC: ModelInfer, and ModelStreamInfer as Triton has it.

Reads, asks the gateway behind the door, writes. A call that its caller cancels is cancelled all the way down: grpc.aio
cancels the method's task. Messages of many elements are decoded on a thread.
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
    refuse_sequence,
    request_id,
    traceparent,
    version_number,
)
from gateway.doors.grpc_call import Call, Context, unforeseen
from gateway.doors.grpc_codec import InferMessage, InferRequest, error_response
from gateway.doors.interface import Answer, Backend
from gateway.limits import Limits
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import Cancelled, NotReady, Overloaded, TurnoutError
from turnout.core.request import Prediction, PredictRequest
from turnout.core.status import shown_message
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
        "_prediction",
        "_received",
        "_streamed",
        "_written",
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
        self.left_s: float | None = call.context.time_remaining()
        self.limit_bytes = limit_bytes
        self.route = self.id = ""
        self.request: PredictRequest | None = None
        self._streamed = index is not None
        self._received: InferRequest | None = None
        self._prediction: Prediction | None = None
        self._written = b""

    def ask(self, received: InferRequest, version: int | None) -> PredictRequest:
        """Return what the router is asked. Raises InvalidInput for a deadline that is none."""
        refuse_sequence(received.parameters)
        deadline = caller_deadline(self.headers.get(HEADER_DEADLINE_MS), received.parameters, self.left_s)
        if deadline is not None:
            # The caller's time runs from when its message came, not from when it was read.
            deadline = Deadline(deadline.at_s - (monotonic_s() - self.received_s))
        self._received = received
        self.request = PredictRequest(
            route=self.route,
            version=version,
            inputs=received.inputs,
            outputs=received.outputs,
            protocol=PROTOCOL,
            request_id=self.request_id,
            received_s=self.received_s,
            headers=self.headers,
            parameters=received.parameters,
            id=self.id,
            deadline=deadline,
            traceparent=traceparent(self.headers.get("traceparent")),
            encode=self.encode,
        )
        return self.request

    def encode(self, prediction: Prediction) -> None:
        """Write the answer and keep it. The router calls this before it counts the outcome."""
        assert self._received is not None
        self._written = self._received.encode(
            prediction, self.request_id, limit_bytes=self.limit_bytes, final=self._streamed
        )
        self._prediction = prediction

    def written(self, prediction: Prediction) -> bytes:
        """Return the bytes of this very answer."""
        if self._prediction is not prediction:
            self.encode(prediction)
        return self._written


class Predictions:
    """The two predicting methods of one door."""

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self._backend = backend
        self._limits = limits
        self._held_bytes = 0
        self._streams: set[asyncio.Task[None]] = set()
        self._ending = False
        self._decoders = ThreadPoolExecutor(_DECODERS, "turnout-message")

    def end_streams(self) -> None:
        """Read no more from open streams: each ends once what it has read is answered."""
        self._ending = True
        for reader in self._streams:
            reader.cancel()

    def close(self) -> None:
        """Let the threads go once they are idle."""
        self._decoders.shutdown(wait=False)

    async def infer(self, message: bytes, context: Context) -> bytes:
        """Answer one ModelInfer."""
        call = Call(context)
        exchange = Exchange(call, self._limits.message_bytes)
        try:
            answer = self._begin(exchange, message)
            prediction = answer if isinstance(answer, Prediction) else await answer
            written = exchange.written(prediction)
        except TurnoutError as error:
            failure = error
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            failure = unforeseen(call.request_id)
        else:
            await call.announce(prediction.generation, prediction.version, prediction.fallback)
            return written
        self._note(exchange, failure)
        request = exchange.request
        if request is None:
            return await call.refuse(failure, self._backend.generation)
        return await call.refuse(failure, request.generation or self._backend.generation, request.picked)

    async def stream(self, _: object, context: Context) -> None:
        """Answer one ModelStreamInfer: in the order asked, errors as messages, a bounded number under way."""
        call = Call(context)
        await call.announce(self._backend.generation)
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        slots = asyncio.Semaphore(self._limits.stream_requests)
        under_way: set[asyncio.Task[bytes]] = set()
        reader = asyncio.create_task(self._receive(call, slots, answers, under_way))
        reader.add_done_callback(lambda _: answers.put_nowait(None))
        self._streams.add(reader)
        if self._ending:
            reader.cancel()
        try:
            while (answer := await answers.get()) is not None:
                await context.write(await answer)
                slots.release()
        finally:
            self._streams.discard(reader)
            for task in (reader, *under_way):
                task.cancel()
            await asyncio.gather(reader, *under_way, return_exceptions=True)
        if reader.cancelled():
            call.end(NotReady("the server is draining; open the stream again"))

    async def _receive(
        self,
        call: Call,
        slots: asyncio.Semaphore,
        answers: "asyncio.Queue[asyncio.Task[bytes] | None]",
        under_way: "set[asyncio.Task[bytes]]",
    ) -> None:
        """Start an answer for each message that comes, until the caller has no more."""
        for index in itertools.count():
            await slots.acquire()
            message = await call.context.read()
            if not isinstance(message, bytes):  # grpc.aio's mark of the end
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
            return b"".join(grpc_wire.delimited(_STREAM_ANSWER, exchange.written(prediction)))
        except TurnoutError as error:
            failure = error
        except Exception:  # noqa: BLE001  as for a single prediction
            failure = unforeseen(exchange.request_id)
        self._note(exchange, failure)
        text = shown_message(failure, exchange.request_id).encode()
        about = error_response(exchange.id, exchange.request_id, exchange.request)
        return b"".join((*grpc_wire.delimited(_STREAM_ERROR, text), *grpc_wire.delimited(_STREAM_ANSWER, about)))

    def _begin(self, exchange: Exchange, message: bytes) -> Answer:
        """Read the message and ask the router; what has to be waited for is left to await. Raises core errors."""
        if self._held_bytes + len(message) > self._limits.held_bytes:
            raise Overloaded(f"{self._held_bytes} bytes of messages are held already; try again")
        infer = InferMessage(message)
        exchange.route, exchange.id = infer.route, infer.id
        version = version_number(infer.version, infer.route)
        if infer.many_elements:
            return self._wait(exchange, message, self._decoded(exchange, infer, version))
        answer = self._backend.predict(exchange.ask(infer.decode(), version))
        return answer if isinstance(answer, Prediction) else self._wait(exchange, message, answer)

    async def _wait(self, exchange: Exchange, message: bytes, rest: Coroutine[Any, Any, Prediction]) -> Prediction:
        """Hold the message until its answer is there."""
        self._held_bytes += len(message)
        try:
            return await rest
        except asyncio.CancelledError:
            self._note(exchange, Cancelled("the caller left"))
            raise
        finally:
            self._held_bytes -= len(message)

    async def _decoded(self, exchange: Exchange, infer: InferMessage, version: int | None) -> Prediction:
        received = await asyncio.get_running_loop().run_in_executor(self._decoders, infer.decode)
        answer = self._backend.predict(exchange.ask(received, version))
        return answer if isinstance(answer, Prediction) else await answer

    def _note(self, exchange: Exchange, failure: TurnoutError) -> None:
        """Have a request counted that never reached the router."""
        if exchange.request is None:
            self._backend.refused(exchange.route, PROTOCOL, failure, exchange.request_id, exchange.received_s)
