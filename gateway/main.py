"""A gateway process: puts the serving parts together, opens the doors, and obeys its parent until it is told to leave.

The only module that knows all parts of the data plane. The parent starts it; nobody does by hand.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import uvloop

from gateway.config import ProcessConfig
from gateway.doors.grpc import GrpcDoor
from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import protocol_for
from gateway.files import allow_many_files, within_files
from gateway.http_server import HttpServer
from gateway.observe.access_log import AccessLog, open_log
from gateway.observe.log_handler import BoundedLogHandler
from gateway.observe.metrics import Metrics
from gateway.parent.child import read_settings
from gateway.parent.messages import (
    Commit,
    Drain,
    FromProcess,
    Leaves,
    Listening,
    Loads,
    MachineReady,
    SaysReady,
    ToProcess,
)
from gateway.parent_link import ParentLink
from gateway.pressure import Pressure
from gateway.routing.backend import GatewayBackend
from gateway.routing.follower import Follower
from gateway.routing.router import Router
from gateway.serving.pool import Pool
from gateway.serving.served_version import ServedVersion
from gateway.serving.stages import Stage
from turnout.core.clock import Deadline

_STDOUT: Final = 1
_STDERR: Final = 2
# Requests make many short-lived objects and few cycles: look for young cycles less often than Python does by itself.
# Old ones (connections, tables, versions that left) soon: what stays is frozen, so a look at all the rest is quick.
GC_THRESHOLD: Final = (10_000, 5, 5)
_LOOK_S: Final = 0.05
# A leaving process without connections stays this long for callers who have not heard yet.
_QUIET_S: Final = 0.5
# What a leaving process keeps of its time for closing what is still open.
_CLOSING_SHARE: Final = 0.1
# gRPC connections are told to move within this share of the drain time (DESIGN 1).
_CONNECTION_AGE_SHARE: Final = 0.5


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a gateway process with the settings that the parent handed over, and exit."""
    config = msgspec.json.decode(read_settings(arguments), type=ProcessConfig)
    sys.setswitchinterval(config.gateway.switch_interval_s)
    gc.set_threshold(*GC_THRESHOLD)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config))
        # All is closed. A thread that is still in a model's code, to load or to run it, must not hold up the end.
        os._exit(0)


async def _run(config: ProcessConfig) -> None:
    link = await ParentLink.open(config.control_fd)
    metrics = Metrics(Path(config.metrics), config.slot)
    log = BoundedLogHandler.install(_STDERR, metrics, str(config.slot))
    log_file = open_log(config.gateway.access_log_path, _STDOUT)
    access_log = AccessLog(log_file, metrics, sample=config.gateway.access_log_sample)
    pressure = Pressure(config.gateway.limits)
    pool = Pool(metrics, Path(config.scratch), lambda loading: link.send(Loads(loading)), pressure)
    router = Router(metrics, access_log, pressure)
    follower = Follower(pool, router, link.send)
    doors = _Doors(config, GatewayBackend(pool, router, follower, metrics))
    obedience = _Obedience(follower, link.send, config.gateway.drain_seconds)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, obedience.leave_alone)
    pool.watch(obedience.see)
    tasks = [asyncio.create_task(link.beat()), asyncio.create_task(link.listen(obedience.hear))]
    if not config.replaces or await obedience.is_warm():
        await doors.open()
        obedience.serving = True
        link.send(Listening())
        tasks.append(asyncio.create_task(_freeze(obedience.committed)))
        await doors.leave(await obedience.leaving)
    await router.close()
    await pool.close()
    access_log.close()
    log.close()
    metrics.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await link.close()


async def _freeze(committed: asyncio.Event) -> None:
    """Keep what was loaded by then out of later collections: it stays."""
    await committed.wait()
    gc.collect()
    gc.freeze()


class _Obedience:
    """What the parent has told this process: the first commit, and to leave. `serving`: the doors are open."""

    def __init__(self, follower: Follower, send: Callable[[FromProcess], None], drain_seconds: float) -> None:
        self.committed = asyncio.Event()
        self.serving = False
        self.leaving: asyncio.Future[Drain] = asyncio.get_running_loop().create_future()
        self._follower = follower
        self._send = send
        self._drain_seconds = drain_seconds
        self._signalled = False
        self._hangs = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def is_warm(self) -> bool:
        """Wait for the first commit; False when this process is to leave before it."""
        commit = asyncio.create_task(self.committed.wait())
        first: list[asyncio.Future[Any]] = [commit, self.leaving]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        commit.cancel()
        return not self.leaving.done()

    async def hear(self, message: ToProcess) -> None:
        """Obey one message of the parent."""
        await self._follower.handle(message)
        if isinstance(message, Commit):
            self.committed.set()
        elif isinstance(message, MachineReady):
            self._send(SaysReady())
        elif isinstance(message, Drain) and not self.leaving.done():
            self.leaving.set_result(message)

    def see(self, served: ServedVersion) -> None:
        """Ask to be replaced once a call hangs in this process: nothing else ends its thread."""
        if served.stage is Stage.LOST and not served.entry.runtime.uses_worker and self.serving and not self._hangs:
            self._hangs = True
            self._send(Leaves())

    def leave_alone(self) -> None:
        """Leave on an operator's signal: once the parent has another process serve, or at once where none is needed.

        A second signal does not wait for that.
        """
        self._send(Leaves())
        if self.serving and not self._signalled:
            self._signalled = True
            return
        task = asyncio.create_task(self.hear(Drain(self._drain_seconds)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Doors:
    """Both doors of the process."""

    def __init__(self, config: ProcessConfig, backend: GatewayBackend) -> None:
        settings = config.gateway
        limits = within_files(settings.limits, allow_many_files())
        self._config = config
        door = HttpDoor(backend, limits, repository_control=settings.repository_control)
        self._http = HttpServer(door, protocol_for(door, backend, limits), lifespan=True)
        self._grpc = GrpcDoor(
            backend,
            limits,
            repository_control=settings.repository_control,
            max_connection_age_s=settings.drain_seconds * _CONNECTION_AGE_SHARE,
        )

    async def open(self) -> None:
        """Take requests."""
        await self._grpc.start(self._config.grpc_host, self._config.grpc_port, reuse_port=True)
        await self._http.open(socket.socket(fileno=self._config.http_fd))

    async def leave(self, drain: Drain) -> None:
        """Serve on while callers move away; end in time what is left."""
        end = Deadline.after(drain.seconds * (1 - _CLOSING_SHARE))
        self._http.leave()
        if drain.relieved:
            await self._http.close_port()
        grpc = asyncio.create_task(self._grpc.stop(end.left_s, relieved=drain.relieved))
        quiet = Deadline.after(_QUIET_S)
        while not end.passed and not (grpc.done() and quiet.passed):
            await asyncio.sleep(_LOOK_S)
            if self._http.connections:
                quiet = Deadline.after(_QUIET_S)
        await self._http.stop(drain.seconds * _CLOSING_SHARE)
        await grpc


if __name__ == "__main__":
    main(sys.argv[1:])
