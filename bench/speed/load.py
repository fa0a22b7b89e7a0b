"""Runs the load programs: wrk for HTTP, h2load for gRPC. Both are compiled, closed loops on the load's core.

Every request is one of a set whose rows differ. wrk sends them in turn. h2load sends one message a process, so that
several run side by side, each with a row of its own; with one client the row changes from run to run.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

_SCRIPT: Final = Path(__file__).with_name("rows.lua")
_PROCESSES: Final = 8
_SLACK_S: Final = 60
_NOT_ANSWERED_S: Final = 20
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


class Load(msgspec.Struct, frozen=True):
    """What one run of a load program saw. `body_bytes` counts all that came, or for gRPC what came in data frames."""

    requests: int
    seconds: float
    bytes: int
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def wrk(address: str, requests: Sequence[bytes], clients: int, seconds: int) -> Load:
    """Send whole HTTP requests over so many connections. Raises RuntimeError when wrk does."""
    with tempfile.TemporaryDirectory() as folder:
        for number, request in enumerate(requests):
            Path(folder, str(number)).write_bytes(request)
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={_NOT_ANSWERED_S}s", "-s", str(_SCRIPT)]
        text = _run([*command, f"http://{address}", "--", folder, str(len(requests))], seconds)
    said = json.loads(text.rstrip().rpartition("\n")[2])
    return Load(
        requests=said["requests"],
        seconds=said["seconds"],
        bytes=said["bytes"],
        failed=said["failed"],
        p50_ms=said["p50_us"] / 1000,
        p99_ms=said["p99_us"] / 1000,
    )


def h2load(
    address: str, messages: Sequence[bytes], headers: Sequence[dict[str, str]], clients: int, seconds: int
) -> Load:
    """Call ModelInfer over so many connections, one stream each; the first messages are taken, one a process."""
    processes = min(_PROCESSES, clients, len(messages))
    shares = [clients // processes + (number < clients % processes) for number in range(processes)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as threads:
        runs = [
            threads.submit(
                _h2load, address, Path(folder, str(number)), messages[number], headers[number], share, seconds
            )
            for number, share in enumerate(shares)
        ]
        return joined([run.result() for run in runs])


def joined(parts: Sequence[tuple[Load, list[int]]]) -> Load:
    """Return what load programs that ran side by side saw together; with each go its latencies in microseconds."""
    loads = [load for load, _ in parts]
    latencies = sorted(latency for _, some in parts for latency in some)
    return Load(
        requests=sum(load.requests for load in loads),
        seconds=max(load.seconds for load in loads),
        bytes=sum(load.bytes for load in loads),
        failed=sum(load.failed for load in loads),
        p50_ms=_at(latencies, 0.50) / 1000,
        p99_ms=_at(latencies, 0.99) / 1000,
    )


def _h2load(
    address: str, files: Path, message: bytes, headers: dict[str, str], clients: int, seconds: int
) -> tuple[Load, list[int]]:
    frame, log = files.with_suffix(".frame"), files.with_suffix(".log")
    frame.write_bytes(b"\x00" + len(message).to_bytes(4, "big") + message)
    command = ["h2load", f"-c{clients}", "-m1", f"-D{seconds}", f"--log-file={log}", "-d", str(frame)]
    sent = {"content-type": "application/grpc", "te": "trailers", **headers}
    pairs = [word for name, value in sent.items() for word in ("-H", f"{name}: {value}")]
    text = _run([*command, *pairs, f"http://{address}{_INFER}"], seconds)
    load = read_h2load(text, seconds)
    return load, [int(line.split("\t")[2]) for line in log.read_text().splitlines()]


def read_h2load(text: str, seconds: float) -> Load:
    """Return the counts in h2load's words; latencies are not among them. Raises RuntimeError when they are others."""
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    data = re.search(r"headers .*?, \S+ \((\d+)\) data", text)
    if done is None or data is None:
        raise RuntimeError(f"h2load said: {text}")
    succeeded, failed, errored, timeout = map(int, done.groups()[1:])
    return Load(succeeded, seconds, int(data[1]), failed + errored + timeout, 0.0, 0.0)


def _run(command: Sequence[str], seconds: int) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + _SLACK_S)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _at(ordered: Sequence[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else float("nan")
