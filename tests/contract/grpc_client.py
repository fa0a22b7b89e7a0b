"""A gRPC caller for the doors' tests: real sockets, answers with their metadata, errors as values."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np

from gateway.doors.grpc import GrpcDoor
from gateway.limits import Limits
from tests.fake_backend import FakeBackend
from turnout.core.tensor import Tensor
from turnout.core.wire import inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
WITHIN_S = 30
NO_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Got(NamedTuple):
    """How a call ended: `message` is what came back, with its metadata."""

    code: grpc.StatusCode
    text: str
    message: Any
    initial: dict[str, str]
    trailing: dict[str, str]


class Client:
    """Calls methods of one door."""

    def __init__(self, door: GrpcDoor, port: int, channel: grpc.aio.Channel) -> None:
        self.door = door
        self.port = port
        self.channel = channel
        self.leaving: asyncio.Task[None] | None = None

    def leave(self, drain_s: float = 2, *, relieved: bool = True) -> None:
        """Let the door leave, beside what the test does."""
        self.leaving = asyncio.create_task(self.door.stop(drain_s, relieved=relieved))

    def unary(self, method: str, answer: Any = None, service: str = SERVICE) -> Any:
        """Return a unary method; messages or bytes go in, `answer` is the type that comes out, None for bytes."""
        return self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=_written,
            response_deserializer=None if answer is None else answer.FromString,
        )

    async def ask(self, method: str, request: Any, answer: Any = None, service: str = SERVICE, **kwargs: Any) -> Got:
        """Call a unary method and wait for its end."""
        kwargs.setdefault("timeout", WITHIN_S)
        call = self.unary(method, answer, service)(request, **kwargs)
        return await ended(call)

    async def infer(self, request: Any, **kwargs: Any) -> Got:
        """Call ModelInfer."""
        return await self.ask("ModelInfer", request, pb.ModelInferResponse, **kwargs)

    def stream(self, **kwargs: Any) -> Any:
        """Open a ModelStreamInfer."""
        kwargs.setdefault("timeout", WITHIN_S)
        return self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=_written,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )(**kwargs)


async def ended(call: Any) -> Got:
    """Wait for the end of a unary call."""
    try:
        message = await call
    except grpc.aio.AioRpcError:
        message = None
    return Got(
        await call.code(),
        await call.details(),
        message,
        dict(await call.initial_metadata()),
        dict(await call.trailing_metadata()),
    )


def _written(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextlib.asynccontextmanager
async def serving(
    backend: FakeBackend,
    limits: Limits | None = None,
    *,
    repository_control: bool = True,
    max_connection_age_s: float | None = None,
) -> AsyncIterator[Client]:
    """Serve a backend on a free port for as long as the block runs."""
    door = GrpcDoor(
        backend,
        limits or Limits(),
        repository_control=repository_control,
        max_connection_age_s=max_connection_age_s,
    )
    port = await door.start("127.0.0.1", 0, reuse_port=False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_LIMITS) as channel:
        client = Client(door, port, channel)
        try:
            yield client
        finally:
            await (client.leaving or door.stop(1))


def raw_request(model: str, tensors: dict[str, Tensor] | None = None, **fields: Any) -> pb.ModelInferRequest:
    """Return a raw request; without tensors one FP64 row called x."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, tensor in (tensors or {"x": Tensor.of(np.array([1.0]))}).items():
        request.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(bytes(tensor.raw()))
    return request
