"""Starts and stops the servers that are measured, each on the server's core: the gateway and the bare handlers.

A server that does not start raises, and so fails the run.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.campaign.harness import ROOT
from bench.launch import serve
from bench.speed.configs import Client, client, lay_out
from bench.speed.cores import SERVER_CORE

_STARTED_WITHIN_S: Final = 120.0
_STOPPED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.1


class Server(msgspec.Struct, frozen=True):
    """A running server. `metrics` is where the gateway's are; None for the others, whose requests nobody counts."""

    name: str
    pid: int
    http: str = ""
    grpc: str = ""
    metrics: str | None = None
    client: Client = Client({}, 0)


@contextlib.contextmanager
def gateway(name: str, models: Path, folder: Path) -> Iterator[Server]:
    """Run `turnout serve` over the models under a configuration."""
    settings = lay_out(name, models, folder)
    flags = ("--config", str(settings))
    with serve(folder / "models", folder / "state", *flags, within_s=300, cpus=str(SERVER_CORE)) as running:
        yield Server(name, running.process.pid, running.http, running.grpc, running.metrics, client(name))


@contextlib.contextmanager
def bare_http(name: str, module: str, environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Run a bare ASGI callable under uvicorn with uvloop and httptools."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--no-access-log"]
    command += ["--loop", "uvloop", "--http", "httptools", "--log-level", "error"]
    with process(command, environment, log) as running:
        wait_listening(running, port, log)
        yield Server(name, running.pid, http=f"127.0.0.1:{port}")


@contextlib.contextmanager
def bare_grpc(name: str, environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Run the bare grpc.aio handler, which prints its port."""
    with process([sys.executable, "-m", "bench.bare.grpc_aio"], environment, log) as running:
        port = _printed_port(running, log)
        yield Server(name, running.pid, grpc=f"127.0.0.1:{port}")


@contextlib.contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, cwd: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command on the server's core, in a process group of its own; what it says goes to `log`."""
    with log.open("wb") as output, log.open("ab") as errors:
        running = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=output,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield running
        finally:
            _end(running)


def free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def wait_listening(running: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until somebody takes connections on a port. Raises RuntimeError with the end of the log."""
    for _ in _until_started(running, log):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return


def _printed_port(running: "subprocess.Popen[bytes]", log: Path) -> int:
    for _ in _until_started(running, log):
        said = log.read_text().split()
        if said:
            return int(said[0])
    raise AssertionError


def _until_started(running: "subprocess.Popen[bytes]", log: Path) -> Iterator[None]:
    until_s = time.monotonic() + _STARTED_WITHIN_S
    while True:
        yield
        if running.poll() is not None or time.monotonic() > until_s:
            raise RuntimeError(f"{running.args!r} did not start (exit {running.poll()}): {log.read_text()[-2000:]}")
        time.sleep(_LOOK_S)


def _end(running: "subprocess.Popen[bytes]") -> None:
    """End the whole process group: by SIGTERM, then by SIGKILL."""
    for stop in (15, 9):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(_STOPPED_WITHIN_S)
