"""The gRPC door: one grpc.aio server with every service on it, and how it opens and leaves.

Messages travel as bytes; each service reads and writes its own. No decision about a request is made here.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.doors import grpc_sockets
from gateway.doors.grpc_call import Call, Context, unary
from gateway.doors.grpc_health import SERVICE as HEALTH
from gateway.doors.grpc_health import Health
from gateway.doors.grpc_predict import Predictions
from gateway.doors.grpc_service import Service
from gateway.doors.interface import Backend
from gateway.limits import Limits
from turnout.core.clock import Deadline
from turnout.core.errors import Unimplemented
from turnout.core.wire import inference_pb2

INFERENCE: Final = "inference.GRPCInferenceService"
# Version 1 of reflection has the messages of its alpha under another name.
REFLECTIONS: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")

_LOOK_EVERY_S: Final = 0.05
# The last part of the drain time: what is still open is told to end, then cut.
_ENDING_SHARE: Final = 0.1


class GrpcDoor:
    """Serves the gateway behind `backend` over gRPC.

    `repository_control`: whether callers may load and unload models. `max_connection_age_s`: connections older than
    that are asked to move, so that a leaving server loses none; it must be below the drain time. None: never.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        *,
        repository_control: bool,
        max_connection_age_s: float | None,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._max_connection_age_s = max_connection_age_s
        self._predictions = Predictions(backend, limits)
        self._service = Service(backend, repository_control=repository_control)
        self._health = Health(backend)
        self._server: Any = None
        self._port = 0

    async def start(self, host: str, port: int, *, reuse_port: bool) -> int:
        """Serve on a port, 0 for any, and return it. Raises OSError when it cannot be bound."""
        self._server = grpc.aio.server(options=self._options(reuse_port=reuse_port))
        self._server.add_generic_rpc_handlers((_Methods(self._methods(), self._backend),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}") from error
        await self._server.start()
        return self._port

    async def stop(self, drain_s: float) -> None:
        """Leave within `drain_s` seconds: take no new connections, let the old ones move away, then end what is left.

        Without `max_connection_age_s` connections do not move, and only the calls under way are waited for.
        """
        if self._server is None:
            return
        end = Deadline.after(drain_s)
        ending_s = drain_s * _ENDING_SHARE
        self._health.drain()
        grpc_sockets.shut_listeners(self._port)
        if self._max_connection_age_s is not None:
            while end.left_s > ending_s and grpc_sockets.count_connections(self._port):  # noqa: ASYNC110  no event tells
                await asyncio.sleep(_LOOK_EVERY_S)
        self._predictions.end_streams()
        await self._server.stop(max(0.0, end.left_s))
        self._predictions.close()
        self._server = None

    def _options(self, *, reuse_port: bool) -> list[tuple[str, int]]:
        limits = self._limits
        options = [
            ("grpc.so_reuseport", int(reuse_port)),
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.max_send_message_length", -1),  # the codec refuses with our text
            # Equal, or grpc refuses at random between the two.
            ("grpc.max_metadata_size", limits.header_bytes),
            ("grpc.absolute_max_metadata_size", limits.header_bytes),
            ("grpc.max_concurrent_streams", limits.connection_calls),
            # A connection that never says it speaks HTTP/2 is closed.
            ("grpc.server_handshake_timeout_ms", max(1, int(limits.header_s * 1000))),
        ]
        if self._max_connection_age_s is not None:
            options.append(("grpc.max_connection_age_ms", max(1, int(self._max_connection_age_s * 1000))))
        return options

    def _methods(self) -> dict[str, Any]:
        """Return the handlers of every method by its path."""
        generation = self._generation
        table = {
            f"/{INFERENCE}/{name}": grpc.unary_unary_rpc_method_handler(unary(method, generation))
            for name, method in self._service.methods().items()
        }
        table[f"/{INFERENCE}/ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._predictions.infer)
        table[f"/{INFERENCE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._predictions.stream)
        table[f"/{HEALTH}/Check"] = grpc.unary_unary_rpc_method_handler(unary(self._health.check, generation))
        table[f"/{HEALTH}/Watch"] = grpc.unary_stream_rpc_method_handler(self._health.watch)
        reflect = _Reflection(self._backend)
        for service in REFLECTIONS:
            table[f"/{service}/ServerReflectionInfo"] = grpc.stream_stream_rpc_method_handler(
                reflect.info,
                request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        return table

    def _generation(self) -> int:
        return self._backend.generation


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
    """Finds a method by its path; any other is refused in our form."""

    def __init__(self, table: Mapping[str, Any], backend: Backend) -> None:
        self._table = table
        self._backend = backend
        self._unknown = grpc.stream_stream_rpc_method_handler(self._refuse)

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method."""
        return self._table.get(handler_call_details.method, self._unknown)

    async def _refuse(self, _: object, context: Context) -> None:
        await Call(context).refuse(Unimplemented("this server has no such method"), self._backend.generation)


class _Reflection:
    """Server reflection over a descriptor pool of its own, which holds just what is served here."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        pool = descriptor_pool.DescriptorPool()
        for module in (inference_pb2, health_pb2, reflection_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._servicer = reflection.aio.ReflectionServicer((INFERENCE, HEALTH, REFLECTIONS[0]), pool)

    async def info(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Answer one stream of questions."""
        await Call(context).announce(self._backend.generation)
        async for answer in self._servicer.ServerReflectionInfo(requests, context):
            yield answer
