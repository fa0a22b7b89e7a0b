"""Starts the gateway for the tour and reads its ready line."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from models.flight_delay import processes

READY: Final = re.compile(r"turnout ready http=(\S+) grpc=(\S+) metrics=(\S+) control=(\S+) models=\d+ routes=\d+")
READY_WITHIN_S: Final = 120.0
LEAVE_S: Final = 20.0
PORTS: Final = {"--http-port": 8080, "--grpc-port": 8081, "--metrics-port": 8082, "--control-port": 8090}


class NotServing(Exception):
    """The gateway did not become ready; the text says why."""


class Server(NamedTuple):
    """A ready gateway: its addresses, its ready line, its log."""

    http: str
    grpc: str
    metrics: str
    control: str
    line: str
    log: Path


@contextlib.asynccontextmanager
async def serving(folder: Path, state: Path, log: Path, environment: Mapping[str, str]) -> AsyncIterator[Server]:
    """Run `turnout serve` over a folder while the block runs. Raises NotServing."""
    command = ["-m", "turnout.cli.main", "serve", str(folder), "--state", str(state), *ports()]
    async with processes.running(command, log=log, environment=environment, leave_s=LEAVE_S) as process:
        line = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN_S):
                async for line in processes.lines(process):
                    if READY.match(line):
                        break
        found = READY.match(line)
        if found is None:
            raise NotServing(f"the gateway is not ready; the end of {log}:\n{processes.tail(log)}")
        drain = asyncio.create_task(_drain(process))
        try:
            http, grpc, metrics, control = found.groups()
            yield Server(http, grpc, metrics, control, line, log)
        finally:
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read on, so that the gateway never waits for a reader of its stdout."""
    async for _ in processes.lines(process):
        pass


def ports() -> Sequence[str]:
    """Return the port flags: the usual ports where they are free, any where one is taken."""
    for port in PORTS.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return [word for flag in PORTS for word in (flag, "0")]
    return [word for flag, port in PORTS.items() for word in (flag, str(port))]
