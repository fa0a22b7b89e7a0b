"""Starts and stops the real gateway for checks, as an operator does: `turnout serve`, one process tree, own state."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

READY: Final = re.compile(r"turnout ready http=(\S+) grpc=(\S+) metrics=(\S+) control=(\S+) models=(\d+) routes=(\d+)")
ANY_PORT: Final = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--control-port", "0")


class Gateway:
    """A running `turnout serve`: its four addresses, its log, and its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.http = self.grpc = self.metrics = self.control = ""
        self.models = self.routes = 0
        self._ready = threading.Event()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str] | None) -> None:
        assert stream is not None
        with stream:
            for line in stream:
                self.log.append(line)
                found = READY.search(line)
                if found:
                    self.http, self.grpc, self.metrics, self.control = found.group(1, 2, 3, 4)
                    self.models, self.routes = int(found[5]), int(found[6])
                    self._ready.set()

    def wait_ready(self, within_s: float) -> None:
        """Wait for the ready line. Raises RuntimeError with the log's end when it ends or does not come."""
        until = time.monotonic() + within_s
        while not self._ready.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(
                    f"the gateway is not ready (exit {self.process.poll()}):\n" + "".join(self.log[-30:])
                )

    def stop(self, within_s: float = 30) -> int:
        """End it by SIGTERM and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(within_s)
        return code

    def descendants(self) -> dict[int, str]:
        """Return the living processes below it: pid to command line."""
        return descendants(self.process.pid)


@contextlib.contextmanager
def serve(
    folder: Path | None,
    state: Path,
    *flags: str,
    within_s: float = 90,
    cpus: str | None = None,
    environment: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    ready: bool = True,
) -> Iterator[Gateway]:
    """Run `turnout serve` over `folder` while the block runs, and wait until it is ready unless told otherwise.

    Ports are free ones unless `flags` say otherwise.
    """
    pin = ["taskset", "-c", cpus] if cpus else []
    command = [*prefix, *pin, sys.executable, "-m", "turnout.cli.main", "serve", *([str(folder)] if folder else [])]
    process = subprocess.Popen(
        [*command, "--state", str(state), *ANY_PORT, *flags],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    gateway = Gateway(process)
    try:
        if ready:
            gateway.wait_ready(within_s)
        yield gateway
    finally:
        try:
            gateway.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Return the living processes below `pid`: pid to command line."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    below: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        for child in level:
            with contextlib.suppress(OSError):
                below[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return below
