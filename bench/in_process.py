"""The real data plane in one process, without sockets: doors, router, pool and adapters, behind wires that only keep.

For checks that count work rather than time it. What time decides in a gateway (whether a model runs inline) is fixed
here, since a counted process runs many times slower. Starts no server and no parent.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import uvicorn
from uvicorn.server import ServerState

from gateway.config import GatewayConfig
from gateway.doors.grpc_call import Work
from gateway.doors.grpc_predict import Predictions
from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import protocol_for
from gateway.limits import Limits
from gateway.observe.access_log import AccessLog, open_log
from gateway.observe.metrics import Metrics
from gateway.parent.messages import Commit, Prepare
from gateway.routing.backend import GatewayBackend
from gateway.routing.follower import Follower
from gateway.routing.router import Router
from gateway.serving.pool import Pool
from turnout.core.snapshot import Route, Snapshot, VersionEntry, encode

_LOADED_WITHIN_S: Final = 300.0  # under callgrind, on a busy machine, an import of scikit-learn takes a minute
_LOOK_S: Final = 0.01
_DATE: Final = (b"date", b"Thu, 26 Nov 2026 00:00:00 GMT")
# Every model proves quick: after its first block of calls it runs on the loop's thread, and stays there.
_ALWAYS_INLINE: Final[dict[str, Any]] = {
    "QUICK_S": math.inf,
    "SLOW_S": math.inf,
    "STALL_S": math.inf,
    "CROWDED_S": math.inf,
}


class Wire:
    """What a connection is to uvicorn's protocols; keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep bytes."""
        self.written.append(data)

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def close(self) -> None:
        """Stay open."""

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        """Know nothing of a socket."""
        return default

    def pause_reading(self) -> None:
        """Go on."""

    def resume_reading(self) -> None:
        """Go on."""


class WireCall:
    """What a gRPC call is to the door: brings one message, keeps the answer."""

    method = b"/inference.GRPCInferenceService/ModelInfer"
    left_s = None
    late = False

    def __init__(self, message: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        self.metadata = metadata
        self.over = False
        self.code: int | None = None
        self.answer: bytes | None = None
        self._message = message

    def receive(self, then: Callable[[Any, bytes | None], None]) -> None:
        """Bring the message at once."""
        then(self, self._message)

    def watch(self, left: Callable[[], object]) -> None:
        """Never leave."""

    def finish(self, _metadata: Any, message: bytes | None, code: int, _text: str = "", _trailing: Any = None) -> None:
        """Keep the end of the call."""
        self.over, self.code, self.answer = True, int(code), message


class DataPlane:
    """A data plane that serves one snapshot, and connections to its doors."""

    def __init__(self, backend: GatewayBackend) -> None:
        limits = Limits()
        door = HttpDoor(backend, limits, repository_control=False)
        self._door = door
        self._protocol = protocol_for(door, backend, limits)
        self._work = Work()
        self.grpc = Predictions(backend, limits, self._work)

    def connect(self) -> tuple[Any, Wire]:
        """Open a connection to the HTTP door."""
        return connect(self._door, self._protocol)


def connect(app: Any, protocol: Any) -> tuple[Any, Wire]:
    """Open a connection of a uvicorn protocol to an ASGI callable."""
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    config.load()
    state = ServerState()
    state.default_headers = [_DATE]
    make: Any = config.http_protocol_class
    connection = make(config=config, server_state=state, app_state={})
    wire = Wire()
    connection.connection_made(wire)
    return connection, wire


@contextlib.asynccontextmanager
async def data_plane(
    folder: Path,
    versions: Mapping[str, Path],
    entries: tuple[VersionEntry, ...],
    routes: tuple[Route, ...],
    *,
    log_sample: int = GatewayConfig().access_log_sample,
) -> AsyncIterator[DataPlane]:
    """Serve `entries`, whose files `versions` places, behind `routes`; scratch and logs go to `folder`.

    `log_sample` is how many of 10,000 answers the access log shows.
    """
    for name in ("metrics", "scratch"):
        (folder / name).mkdir(parents=True)
    with mock.patch.multiple("adapters.threads", **_ALWAYS_INLINE):
        metrics = Metrics(folder / "metrics", 0)
        log = AccessLog(open_log(str(folder / "access.log"), 2), metrics, sample=log_sample)
        pool = Pool(metrics, folder / "scratch")
        router = Router(metrics, log, pool.pressure)
        follower = Follower(pool, router, lambda _message: None)
        snapshot = folder / "snapshot.json"
        snapshot.write_bytes(encode(Snapshot("counted", 1, 1, entries, routes)))
        directories = {key: str(path) for key, path in versions.items()}
        await follower.handle(Prepare(1, str(snapshot), directories, {}))
        async with asyncio.timeout(_LOADED_WITHIN_S):
            while not all(version.serving for version in pool.versions()):
                await asyncio.sleep(_LOOK_S)
        await follower.handle(Commit(1))
        try:
            yield DataPlane(GatewayBackend(pool, router, follower, metrics))
        finally:
            await router.close()
            await pool.close()
            log.close()
