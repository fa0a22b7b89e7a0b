"""grpc.health.v1 over the gateway's own readiness: the server under "", each route under its name.

Keeps no state of its own: every answer is asked of the gateway behind the door.
"""

import asyncio
from typing import Final

from grpc_health.v1 import health_pb2

from gateway.doors.grpc_call import Stream, brought
from gateway.doors.grpc_codec import parse
from gateway.doors.interface import Backend
from turnout.core.errors import NotFound, NotReady, TurnoutError

SERVICE: Final = "grpc.health.v1.Health"
# Besides "", load balancers name the service that they call.
SERVER_NAMES: Final = frozenset({"", "inference.GRPCInferenceService"})

_LOOK_EVERY_S: Final = 0.25
_SERVING: Final = int(health_pb2.HealthCheckResponse.SERVING)
_NOT_SERVING: Final = int(health_pb2.HealthCheckResponse.NOT_SERVING)
_UNKNOWN: Final = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)


class Health:
    """Check and Watch."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._draining = asyncio.Event()
        self._relieved = False

    def drain(self, *, relieved: bool) -> None:
        """End every Watch: its caller looks elsewhere. One that is `relieved` by another door is no less ready."""
        self._relieved = relieved and not self._draining.is_set()
        self._draining.set()

    async def check(self, message: bytes) -> bytes:
        """Tell whether the server or a route is ready. Raises NotFound."""
        service = parse(health_pb2.HealthCheckRequest, message).service
        return _written(_SERVING if self._is_ready(service) else _NOT_SERVING)

    async def watch(self, call: Stream, message: bytes | None) -> None:
        """Tell the same now and at every change; an unknown route may appear later."""
        try:
            service = parse(health_pb2.HealthCheckRequest, brought(call.core, message)).service
        except TurnoutError as error:
            call.end(error)
            return
        call.announce()
        told = None
        while not self._draining.is_set():
            now = self._state(service)
            if now != told:
                await call.write(_written(now))
                told = now
            await self._pause()
        if told != _NOT_SERVING and not self._relieved:
            await call.write(_written(_NOT_SERVING))
        call.end(NotReady("the server is draining"))

    def _state(self, service: str) -> int:
        try:
            return _SERVING if self._is_ready(service) else _NOT_SERVING
        except NotFound:
            return _UNKNOWN

    def _is_ready(self, service: str) -> bool:
        if service in SERVER_NAMES:
            return self._backend.is_ready()
        try:
            return self._backend.is_model_ready(service, None)
        except NotReady:  # before the first routes no name is unknown
            return False

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._draining.wait()
        except TimeoutError:
            pass


def _written(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())
