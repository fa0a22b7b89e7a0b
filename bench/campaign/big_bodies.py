"""Big bodies with the limits raised: what they cost a gateway process in memory, and its other callers in time.

64 MiB of JSON and 256 MiB of binary tensor, by HTTP and by gRPC, to a model that answers one number. Peak memory above
that of the idle process: at most 4 times the JSON and 1.5 times the binary body. p99 of a caller beside them: at most
twice what it is without them, in the same run, the middle of three runs.
"""

import argparse
import functools
import json
import math
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import INFER, infer_message
from bench.launch import Gateway, serve

MIB: Final = 1 << 20
JSON_BYTES: Final = 64 * MIB
BINARY_BYTES: Final = 256 * MIB
QUIET_S: Final = 4.0
ROUNDS: Final = 3
SMALL: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
LIMITS: Final = {
    "body_bytes": 300 * MIB,
    "unpacked_bytes": 300 * MIB,
    "message_bytes": 300 * MIB,
    "held_bytes": 2048 * MIB,
}


def write_widest(folder: Path, datatype: str) -> None:
    """Write an ONNX model that answers the largest number of each row, however wide it is."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only checks that write models pay for it

    element = getattr(TensorProto, {"FP32": "FLOAT", "FP64": "DOUBLE"}[datatype])
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["value"], axes=[1], keepdims=0)],
        "widest",
        [helper.make_tensor_value_info("x", element, ["n", "k"])],
        [helper.make_tensor_value_info("value", element, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def json_body(size: int) -> bytes:
    """Return a JSON request of at least `size` bytes: doubles as a program writes them, 19 characters each."""
    count = size // 20
    drawn = np.random.default_rng(7).random(4096)
    piece = ",".join(repr(float(f"{value:.17f}")) for value in drawn)
    data = ",".join([piece] * math.ceil(count / 4096))
    tensor = f'{{"name":"x","datatype":"FP64","shape":[1,{math.ceil(count / 4096) * 4096}],"data":[{data}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()


def post(address: str, model: str, pieces: list[bytes], *headers: str) -> None:
    """Send a body over a connection of its own and check the answer. Raises RuntimeError."""
    host, _, port = address.rpartition(":")
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: x", f"content-length: {sum(map(len, pieces))}", *headers]
    with socket.create_connection((host, int(port)), 120) as peer:
        peer.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())
        for piece in pieces:
            peer.sendall(piece)
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{model}: {answer[:300]!r}")


class Small:
    """A caller beside: one request after the other, and how long each took."""

    def __init__(self, address: str) -> None:
        self.seconds: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(address,))
        self._thread.start()

    def _call(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        head = f"POST /v2/models/small/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(SMALL)}\r\n\r\n".encode()
        with socket.create_connection((host, int(port)), 60) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._done.wait(0.002):
                began = time.perf_counter()
                peer.sendall(head + SMALL)
                answer = peer.recv(65536)
                while not answer.endswith(b"}"):
                    answer += peer.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"a small request failed: {answer[:500]!r}")
                self.seconds.append(time.perf_counter() - began)

    def stop(self) -> None:
        """End it."""
        self._done.set()
        self._thread.join()


def p99_s(seconds: list[float]) -> float:
    """Return the 99th percentile; NaN of few."""
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) >= 100 else math.nan


class Memory:
    """A process's resident memory, in bytes; the peak is counted anew from `reset`."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))

    def reset(self) -> int:
        """Forget the peak; return what is resident now."""
        (self._folder / "clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak(self) -> int:
        """Return the peak since `reset`."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def measure(campaign: Campaign, gateway: Gateway, name: str, size: int, times: float, send: Callable[[], Any]) -> None:
    """Send a big body: for its memory once alone, for its neighbours' time again and again."""
    (pid,) = (pid for pid, command in gateway.descendants().items() if "gateway.main" in command)
    memory = Memory(pid)
    base = memory.reset()
    send()
    campaign.note(f"{name}: idle resident MiB", round(base / MIB))
    peak = (memory.peak() - base) / size
    if math.isfinite(times):
        campaign.at_most(f"{name}: peak above idle, times the body", peak, times)
    else:  # grpcio itself needs three times a message to receive it
        campaign.note(f"{name}: peak above idle, times the body", round(peak, 2))
    ratios = []
    for number in range(ROUNDS):
        small = Small(gateway.http)
        time.sleep(QUIET_S)
        alone, small.seconds = small.seconds, []
        until = time.monotonic() + QUIET_S
        while time.monotonic() < until:
            send()
        small.stop()
        ratios.append(p99_s(small.seconds) / p99_s(alone))
        campaign.note(
            f"{name}: p99 ms of a small request alone, beside, run {number + 1}",
            [round(p99_s(seconds) * 1000, 2) for seconds in (alone, small.seconds)],
        )
    ratio = statistics.median(ratios)
    if math.isfinite(times):
        campaign.at_most(f"{name}: p99 of a small request, times that without", ratio, 2.0)
    else:
        campaign.note(f"{name}: p99 of a small request, times that without", round(ratio, 2))


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Measure each door and form in a process of its own."""
    text = json_body(JSON_BYTES // arguments.divide)
    raw = np.random.default_rng(7).random(BINARY_BYTES // arguments.divide // 4, np.float32).tobytes()
    columns = len(raw) // 4
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, columns], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    message = infer_message("fp32", {"x": ("FP32", [1, columns], raw)})

    def by_grpc(gateway: Gateway) -> None:
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(gateway.grpc, options) as channel:
            channel.unary_unary(INFER)(message, timeout=120)

    length = f"inference-header-content-length: {len(head)}"
    forms: dict[str, tuple[int, float, Callable[[Gateway], None]]] = {
        "http json": (len(text), 4.0, lambda gateway: post(gateway.http, "fp64", [text])),
        "http binary": (len(raw), 1.5, lambda gateway: post(gateway.http, "fp32", [head, raw], length)),
        "http chunked": (len(raw), 2.5, lambda gateway: post_chunked(gateway.http, "fp32", [head, raw], length)),
        "grpc binary": (len(raw), math.inf, by_grpc),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        versions.write_onnx(folder / "small", 1.0)
        write_widest(folder / "fp32", "FP32")
        write_widest(folder / "fp64", "FP64")
        config = Path(temporary, "turnout.yaml")
        config.write_text(json.dumps({"limits": LIMITS}))
        for name, (size, times, send) in forms.items():
            if arguments.forms and name not in arguments.forms.split(","):
                continue
            with serve(folder, Path(temporary, "state"), "--config", str(config)) as gateway:
                measure(campaign, gateway, name, size, times, functools.partial(send, gateway))


def post_chunked(address: str, model: str, pieces: list[bytes], *headers: str) -> None:
    """Send a body whose length is not told. Raises RuntimeError."""
    host, _, port = address.rpartition(":")
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: x", "transfer-encoding: chunked", *headers]
    with socket.create_connection((host, int(port)), 120) as peer:
        peer.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())
        for piece in (memoryview(one)[at : at + MIB] for one in pieces for at in range(0, len(one), MIB)):
            peer.sendall(b"%x\r\n" % len(piece))
            peer.sendall(piece)
            peer.sendall(b"\r\n")
        peer.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{model}: {answer[:300]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", default="", help="comma-separated; all when empty")
    parser.add_argument("--divide", type=int, default=1, help="make bodies so many times smaller")
    run("big-bodies", check, parser)
