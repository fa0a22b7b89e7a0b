"""The control process: composes its parts, serves until its starter leaves. How it is started: `control/config.py`."""

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import uvicorn

from turnout.control.api.http import ControlApi
from turnout.control.config import ControlConfig, ControlReady
from turnout.control.metrics import ControlMetrics
from turnout.control.plane import ControlPlane
from turnout.control.publish.blobs import BlobFolder
from turnout.control.registry.interface import NotRecorded
from turnout.control.registry.store import SqliteRegistry

_log: Final = logging.getLogger(__name__)
_STOP_S: Final = 2


class CannotStart(Exception):
    """Control cannot start; the text is one line."""


class _Server(uvicorn.Server):
    """A uvicorn server that takes no signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `main`."""
        yield


def main(command: Sequence[str] | None = None) -> None:
    """Run the process as its command line says."""
    parser = argparse.ArgumentParser(prog="python -m turnout.control.main")
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    arguments = parser.parse_args(command)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s [control]: %(message)s", level=logging.INFO, stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = msgspec.json.decode(_read(arguments.config_fd), type=ControlConfig)
    try:
        with contextlib.closing(_registry(config)) as registry, _bind(config.host, config.port) as listener:
            asyncio.run(_serve(config, registry, listener, arguments.ready_fd))
    except CannotStart as error:
        sys.stderr.write(f"turnout: control cannot start: {error}\n")
        sys.exit(1)


def _registry(config: ControlConfig) -> SqliteRegistry:
    path = Path(config.state) / "control" / "registry.db"
    try:
        return SqliteRegistry(path, os.path.realpath(config.folder) if config.folder else "")
    except NotRecorded as error:
        raise CannotStart(
            f"the records cannot be opened: {error}; restore that file, or move it away to begin anew"
        ) from error


async def _serve(config: ControlConfig, registry: SqliteRegistry, listener: socket.socket, ready_fd: int) -> None:
    blobs = BlobFolder(Path(config.state) / "blobs" / "sha256")
    plane = ControlPlane(config, registry, blobs, ControlMetrics())
    server = _Server(
        uvicorn.Config(
            ControlApi(plane).app(),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
    working = asyncio.create_task(plane.run())
    serving = asyncio.create_task(server.serve([listener]))
    told = asyncio.create_task(_until_told_to_leave())
    _say_ready(ready_fd, listener.getsockname()[1])
    done, _ = await asyncio.wait({working, serving, told}, return_when=asyncio.FIRST_COMPLETED)
    plane.leave()
    server.should_exit = True
    working.cancel()
    told.cancel()
    await asyncio.gather(serving, working, told, return_exceptions=True)
    for task in done - {told}:
        task.result()  # neither ends by itself but by a fault, which ends the process loudly


async def _until_told_to_leave() -> None:
    """Return at the end of stdin, or on SIGTERM."""
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    stdin = sys.stdin.fileno()

    def look() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            leave.set()

    loop.add_reader(stdin, look)
    await leave.wait()


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that whoever reads the ready line can connect at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is taken by another process; stop that one, or choose another"
        else:
            reason = f"cannot be bound: {os.strerror(error.errno or 0)}; choose another"
        raise CannotStart(f"port {port} (--control-port) on {host} {reason}") from error


def _say_ready(descriptor: int, port: int) -> None:
    with os.fdopen(descriptor, "wb") as ready:
        ready.write(msgspec.json.encode(ControlReady(port)) + b"\n")


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        if file.seekable():
            file.seek(0)  # a file inherited from its writer stands at its end
        return file.read()


if __name__ == "__main__":
    main()
