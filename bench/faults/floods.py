"""Callers that flood, callers that dawdle, and a wall clock that jumps: what a gateway of few files has to bear."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Final

from bench.faults.scenes import Do, Scene, pid_of
from bench.launch import Gateway

ROUTE: Final = "py0"
HEADER_S: Final = 2.0
LIMITS: Final = {"header_s": HEADER_S, "body_s": HEADER_S}
A_DAY_S: Final = 86_400.0
HEAD: Final = b"GET / HTTP/1.1\r\nx: "
BODY: Final = b"POST /v2/models/py0/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n"
# Python's own clock, moved by what a file says, in every process of the gateway.
CLOCK: Final = '''"""Moves the wall clock of this process by the seconds that a file holds."""

import os
import time

_real = time.time
_offset = os.open(os.environ["TURNOUT_TEST_CLOCK"], os.O_RDONLY)


def _moved():
    return _real() + float(os.pread(_offset, 32, 0) or 0)


time.time = _moved
'''


def write_clock(folder: Path) -> dict[str, str]:
    """Write the moved clock and its file; return the environment in which Python takes it."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(CLOCK)
    (folder / "offset").write_text("0")
    return {"PYTHONPATH": str(folder), "TURNOUT_TEST_CLOCK": str(folder / "offset")}


def few_files(count: int) -> tuple[str, ...]:
    """Return what to put before a command that may open so many files."""
    return ("prlimit", f"--nofile={count}:{count}")


def scenes(clock: Path, connections: int) -> list[Scene]:
    """Return the scenes for a gateway with LIMITS, few files, and the moved clock."""
    lost = frozenset({"503"})
    drips = f"200 callers, a byte each 0.2 s; {{}} {HEADER_S:g}"
    return [
        Scene(
            f"{connections:,} connections, 1,024 files",
            "opened at both doors, held for 3 s, silent",
            ROUTE,
            flooded(connections),
        ),
        Scene("slow headers", drips.format("header_s"), ROUTE, dripping(HEAD)),
        Scene("slow bodies", drips.format("body_s"), ROUTE, dripping(BODY)),
        Scene("clock a day ahead", "then `kill -9` of the worker", ROUTE, jumped(clock, A_DAY_S), lost),
        Scene("clock a day back", "the same, to a day before", ROUTE, jumped(clock, -A_DAY_S), lost),
    ]


def flooded(count: int, hold_s: float = 3.0) -> Do:
    """Return what opens connections at both doors and holds them."""

    def do(gateway: Gateway, _state: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        doors = [(host, int(port)) for host, _, port in (door.rpartition(":") for door in (gateway.http, gateway.grpc))]
        try:
            with contextlib.ExitStack() as stack:
                for number in range(count):
                    peer = stack.enter_context(socket.socket())
                    peer.setblocking(False)
                    peer.connect_ex(doors[number % 2])
                time.sleep(hold_s)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return do


def dripping(begin: bytes, callers: int = 200) -> Do:
    """Return what has callers send a byte now and then until they are cut. Raises RuntimeError if they are not."""

    def do(gateway: Gateway, _state: Path) -> None:
        async def drip() -> None:
            host, _, port = gateway.http.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(begin)
            rest = asyncio.ensure_future(reader.read())
            while not rest.done():
                with contextlib.suppress(OSError):
                    writer.write(b"a")
                await asyncio.wait({rest}, timeout=0.2)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                rest.result()

        async def all_of_them() -> None:
            async with asyncio.timeout(HEADER_S + 10), asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(drip())

        asyncio.run(all_of_them())

    return do


def jumped(clock: Path, seconds: float) -> Do:
    """Return what moves the wall clock, and then has a worker start under it."""

    def do(gateway: Gateway, _state: Path) -> None:
        move(clock, seconds)
        os.kill(pid_of(gateway, ".sock "), signal.SIGKILL)

    return do


def move(clock: Path, seconds: float) -> None:
    """Move the wall clock of a running gateway so far from the machine's. Its processes have the file open."""
    with (clock / "offset").open("r+") as file:
        file.write(f"{seconds:<20}")
