"""The gRPC door: one server with every service on it, and how it opens and leaves.

Messages travel as bytes; each service reads and writes its own. No decision about a request is made here.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.doors import grpc_sockets
from gateway.doors.grpc_call import Call, Method, Stream, Work, unary, unforeseen
from gateway.doors.grpc_codec import parse
from gateway.doors.grpc_core import CoreCall, CoreServer
from gateway.doors.grpc_health import SERVICE as HEALTH
from gateway.doors.grpc_health import Health
from gateway.doors.grpc_predict import Predictions
from gateway.doors.grpc_service import Service
from gateway.doors.interface import Backend
from gateway.limits import Limits
from turnout.core.clock import Deadline
from turnout.core.errors import TurnoutError, Unimplemented
from turnout.core.wire import inference_pb2

INFERENCE: Final = "inference.GRPCInferenceService"
# Version 1 of reflection has the messages of its alpha under another name.
REFLECTIONS: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")

# So many messages are received at once in any case.
_RECEIVING: Final = 16
_SILENT_MS: Final = 30_000
_LOOK_EVERY_S: Final = 0.05
# grpcio asks a connection to move when it is up to a tenth older than it was told.
_AGE_JITTER: Final = 1.15
# A leaving door without connections stays this long for callers who have not heard yet.
_QUIET_S: Final = 0.5
# The last part of the drain time: what is still open is told to end, then cut.
_ENDING_SHARE: Final = 0.1
# What is cut needs a few turns of the loop to take note of it.
_CUT_S: Final = 1.0


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
        self._work = Work()
        self._predictions = Predictions(backend, limits, self._work)
        self._service = Service(backend, repository_control=repository_control)
        self._health = Health(backend)
        self._server: CoreServer | None = None
        self._port = 0
        self._methods: Mapping[bytes, Method] = {path.encode(): method for path, method in self._table().items()}

    async def start(self, host: str, port: int, *, reuse_port: bool) -> int:
        """Serve on a port, 0 for any, and return it. Raises OSError when it cannot be bound."""
        limits = self._limits
        options = self._options(reuse_port=reuse_port)
        server = CoreServer(
            options,
            self._accept,
            body_s=limits.body_s,
            write_s=limits.write_s,
            receiving=max(_RECEIVING, limits.held_bytes // limits.message_bytes),
            hold=self._backend.pressure.hold,
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._port = server.bind(address)
        if not self._port:
            raise OSError(f"gRPC cannot listen on {address}")
        server.start()
        self._server = server
        return self._port

    async def stop(self, drain_s: float, *, relieved: bool = False) -> None:
        """Leave within `drain_s` seconds: take no new connections, let the old ones move away, then end what is left.

        Unless it is `relieved` by another door on the port, new connections are taken as long as there is time for
        them to move away again. Without `max_connection_age_s` connections do not move, and only the calls under way
        are waited for.
        """
        if self._server is None:
            return
        end = Deadline.after(drain_s)
        ending_s = drain_s * _ENDING_SHARE
        moved_s = None if self._max_connection_age_s is None else self._max_connection_age_s * _AGE_JITTER
        if not relieved:
            self._health.drain(relieved=False)
            await self._linger(end.left_s - ending_s - (moved_s or 0.0))
        grpc_sockets.shut_listeners(self._port)
        if moved_s is not None:
            moved = Deadline.after(moved_s)
            while end.left_s > ending_s and grpc_sockets.count_connections(self._port):
                await asyncio.sleep(_LOOK_EVERY_S)
                if moved.passed:
                    self._wind_up()
        self._wind_up()
        self._predictions.end_streams()
        await self._server.stop(max(0.0, end.left_s))
        await self._work.ended(max(0.0, min(_CUT_S, end.left_s)))
        self._predictions.close()
        self._server = None

    def _wind_up(self) -> None:
        """Have streams end that keep connections open which were asked to move."""
        self._predictions.wind_up_streams()
        self._health.drain(relieved=True)

    async def _linger(self, at_most_s: float) -> None:
        """Take connections on, until nobody has been connected for a while."""
        end, quiet = Deadline.after(at_most_s), Deadline.after(_QUIET_S)
        while not end.passed and not quiet.passed:
            await asyncio.sleep(_LOOK_EVERY_S)
            if grpc_sockets.count_connections(self._port):
                quiet = Deadline.after(_QUIET_S)

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
            ("grpc.max_allowed_incoming_connections", limits.connections),
            # A connection that is half open is found out, and its calls are cancelled.
            ("grpc.keepalive_time_ms", _SILENT_MS),
            ("grpc.keepalive_timeout_ms", _SILENT_MS),
            # A connection that never says it speaks HTTP/2 is closed.
            ("grpc.server_handshake_timeout_ms", max(1, int(limits.header_s * 1000))),
        ]
        if self._max_connection_age_s is not None:
            options.append(("grpc.max_connection_age_ms", max(1, int(self._max_connection_age_s * 1000))))
        return options

    def _table(self) -> dict[str, Method]:
        """Return every method by its path."""
        backend, work = self._backend, self._work
        methods = {
            f"/{INFERENCE}/{name}": unary(method, backend, work) for name, method in self._service.methods().items()
        }
        methods[f"/{INFERENCE}/ModelInfer"] = self._predictions.infer
        methods[f"/{INFERENCE}/ModelStreamInfer"] = self._predictions.stream
        methods[f"/{HEALTH}/Check"] = unary(self._health.check, backend, work)
        methods[f"/{HEALTH}/Watch"] = lambda core: core.receive(self._watch)
        reflect = _Reflection()
        for service in REFLECTIONS:
            methods[f"/{service}/ServerReflectionInfo"] = lambda core: work.start(
                core, reflect.info(self._opened(core))
            )
        return methods

    def _accept(self, core: CoreCall) -> None:
        """Have a call answered by its method; any other method is refused in our form."""
        method = self._methods.get(core.method)
        if method is not None:
            method(core)
        else:
            Call(core).refuse(Unimplemented("this server has no such method"), self._backend.generation)

    def _watch(self, core: CoreCall, message: bytes | None) -> None:
        self._work.start(core, self._health.watch(self._opened(core), message))

    def _opened(self, core: CoreCall) -> Stream:
        return Stream(core, self._backend.generation, self._limits.write_s)


class _Reflection:
    """Server reflection over a descriptor pool of its own, which holds just what is served here."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        for module in (inference_pb2, health_pb2, reflection_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._servicer = reflection.aio.ReflectionServicer((INFERENCE, HEALTH, REFLECTIONS[0]), pool)

    async def info(self, call: Stream) -> None:
        """Answer one stream of questions."""
        call.announce()
        try:
            async for answer in self._servicer.ServerReflectionInfo(_questions(call), None):
                await call.write(answer.SerializeToString())
        except TurnoutError as error:
            call.end(error)
        except Exception:  # noqa: BLE001  whatever it is, the caller gets our form of answer and the log the cause
            call.end(unforeseen(call.request_id))
        else:
            call.end()


async def _questions(call: Stream) -> AsyncIterator[Any]:
    while (message := await call.read()) is not None:
        yield parse(reflection_pb2.ServerReflectionRequest, message)
