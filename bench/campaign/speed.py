"""Speed of one row on one core, against bare handlers in the same run.

Server on cpu 0, load on cpu 1, alternating rounds, medians of all rounds; every answer counted must be a success.
"""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from bench import workload
from bench.campaign.harness import ROOT, Campaign, run

CONNECTIONS = 32


class Server:
    """A process pinned to cpu 0, its address, and how to end it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def stop(self) -> None:
        """End it and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a server on cpu 0 with its standard output piped."""
    return subprocess.Popen(
        ["taskset", "-c", "0", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def start_bare_http(model: Path) -> Server:
    """Start the bare ASGI handler."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        address = f"127.0.0.1:{chosen.getsockname()[1]}"
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "uvicorn", "bench.bare.asgi:app", "--port", port, "--no-access-log"]
    process = start(
        [*command, "--loop", "uvloop", "--http", "httptools", "--log-level", "error"], {"BARE_MODEL": str(model)}
    )
    wait_http(f"http://{address}/", workload.json_body(workload.rows()[:1]))
    return Server(process, address)


def start_bare_grpc(model: Path) -> Server:
    """Start the bare grpc.aio handler."""
    process = start([sys.executable, "-m", "bench.bare.grpc_aio"], {"BARE_MODEL": str(model)})
    assert process.stdout is not None
    return Server(process, f"127.0.0.1:{int(process.stdout.readline())}")


def start_turnout(folder: Path, state: Path) -> tuple[Server, str]:
    """Start the gateway as users do; return it with its gRPC address."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--control-port", "0"]
    process = start([sys.executable, "-m", "turnout.cli.main", "serve", str(folder), "--state", str(state), *ports], {})
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"turnout ready http=(\S+) grpc=(\S+)", line)
        if found:
            return Server(process, found[1]), found[2]
    raise RuntimeError("the gateway ended before it was ready")


def wait_http(url: str, body: bytes) -> bytes:
    """Post until the server answers, at most 20 s."""
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def wrk(url: str, seconds: int, script: Path) -> float:
    """Return successful requests a second; raises when any request failed."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found, text
    return float(found[1])


def h2load(address: str, seconds: int, frame: Path) -> float:
    """Return gRPC calls a second; raises when any call failed."""
    command = ["taskset", "-c", "1", "h2load", f"-c{CONNECTIONS}", "-m1", f"-D{seconds}", "-d", str(frame)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://{address}/inference.GRPCInferenceService/ModelInfer"
    text = subprocess.run(
        [*command, *headers, url], capture_output=True, text=True, check=True, timeout=seconds + 30
    ).stdout
    found = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)
    failed = re.search(r"(\d+) failed, (\d+) errored", text)
    assert found, text
    assert failed, text
    if failed.groups() != ("0", "0"):
        raise RuntimeError(text)
    return float(found[1])


def lua(path: Path, bodies: list[bytes]) -> Path:
    """Write a wrk script that sends other rows with each request."""
    quoted = ",\n".join(json.dumps(body.decode()) for body in bodies)
    # Put together beforehand: making each anew would keep the load busier than the servers.
    path.write_text(
        f"local bodies = {{{quoted}}}\nlocal ready = {{}}\nlocal i = 0\n"
        "local h = {['Content-Type']='application/json'}\n"
        "function init()\n  for n, body in ipairs(bodies) do\n"
        "    ready[n] = wrk.format('POST', nil, h, body)\n  end\nend\n"
        "function request()\n  i = i % #ready + 1\n  return ready[i]\nend\n"
    )
    return path


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Compare the gateway with the bare handlers, both doors, one row."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = workload.write_model(folder / "models")
        rows = workload.rows()
        script = lua(folder / "rows.lua", [workload.json_body(rows[i : i + 1]) for i in range(64)])
        frame = folder / "frame.bin"
        frame.write_bytes(workload.grpc_frame(rows[:1]))
        servers: list[Server] = []
        try:
            servers = [bare_http := start_bare_http(model), bare_grpc := start_bare_grpc(model)]
            gateway, grpc_address = start_turnout(folder / "models", folder / "state")
            servers.append(gateway)
            infer = f"http://{gateway.address}/v2/models/cancer/infer"
            same_answer(campaign, infer, f"http://{bare_http.address}/", workload.json_body(rows[:1]))
            seconds = arguments.seconds
            samples: dict[str, list[float]] = {"bare http": [], "http": [], "bare grpc": [], "grpc": []}
            for _ in range(arguments.rounds):
                samples["bare http"].append(wrk(f"http://{bare_http.address}/", seconds, script))
                samples["http"].append(wrk(infer, seconds, script))
                samples["bare grpc"].append(h2load(bare_grpc.address, seconds, frame))
                samples["grpc"].append(h2load(grpc_address, seconds, frame))
        finally:
            for server in servers:
                server.stop()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    campaign.note("requests a second, all rounds", samples)
    campaign.note("requests a second, medians", medians)
    campaign.at_least("HTTP one row, ratio to the bare ASGI handler", medians["http"] / medians["bare http"], 0.7)
    campaign.at_least("gRPC one row, ratio to the bare grpc.aio handler", medians["grpc"] / medians["bare grpc"], 0.8)


def same_answer(campaign: Campaign, ours: str, bare: str, body: bytes) -> None:
    """Both servers must give the same numbers, to the last FP32 digit, before they are timed."""
    answers = [json.loads(wait_http(url, body))["outputs"] for url in (ours, bare)]
    values = [{o["name"]: np.float32(o["data"]).ravel().tolist() for o in outputs} for outputs in answers]
    campaign.equal("both handlers give the same answer", values[0] == values[1], True)
    campaign.note("the answer", values[0])


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    run("speed", check, parser)


if __name__ == "__main__":
    main()
