"""A running turnout command, as tests see it: its doors, its processes, its end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
import httpx

from bench.launch import ANY_PORT, Gateway, descendants
from tests.processes import is_alive
from tests.waiting import eventually
from turnout.core.wire import inference_pb2 as wire

READY_WITHIN_S: Final = 60.0


class Turnout(Gateway):
    """A running turnout command; `children` are the processes below it."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str], prefix: Sequence[str] = ()) -> None:
        super().__init__(
            subprocess.Popen(
                [*prefix, sys.executable, "-P", "-m", "turnout.cli.main", *command],
                cwd=cwd,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def ready(self, within_s: float = READY_WITHIN_S) -> "Turnout":
        """Wait for the ready line."""
        self.wait_ready(within_s)
        return self

    def logged(self, text: str, within_s: float = READY_WITHIN_S) -> str:
        """Wait until a line of the output holds `text`, and return it."""
        return eventually(lambda: next((line for line in self.log if text in line), None), within_s, f"log {text!r}")

    def get(self, path: str) -> httpx.Response:
        """GET from the HTTP door, on a fresh connection."""
        return httpx.get(f"http://{self.http}{path}", timeout=30)

    def admin(self, path: str) -> httpx.Response:
        """GET from the metrics port."""
        return httpx.get(f"http://{self.metrics}{path}", timeout=30)

    def predict(self, route: str, rows: int = 1) -> httpx.Response:
        """Predict rows of zeros over HTTP."""
        tensor = {"name": "x", "datatype": "FP64", "shape": [rows], "data": [0.0] * rows}
        return httpx.post(f"http://{self.http}/v2/models/{route}/infer", json={"inputs": [tensor]}, timeout=30)

    def predict_grpc(self, route: str) -> wire.ModelInferResponse:
        """Predict one row over gRPC."""
        request = wire.ModelInferRequest(model_name=route)
        tensor = request.inputs.add(name="x", datatype="FP64", shape=[1])
        tensor.contents.fp64_contents.append(0.0)
        with grpc.insecure_channel(self.grpc) as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=wire.ModelInferRequest.SerializeToString,
                response_deserializer=wire.ModelInferResponse.FromString,
            )
            return call(request, timeout=30, wait_for_ready=True)

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = self.admin("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " ")))

    def children(self, word: str = "") -> dict[int, str]:
        """Return the living processes below it whose command line holds `word`."""
        found = descendants(self.process.pid)
        return {pid: command for pid, command in found.items() if word in command}

    def gateways(self) -> list[int]:
        """Return the process ids of its gateway processes."""
        return sorted(self.children("gateway.main"))

    def end(self, within_s: float = 30) -> int:
        """SIGTERM it, wait until every process below it is gone, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(within_s)

    def ended(self, within_s: float = 30) -> int:
        """Wait until it and every process below it are gone, and return its exit status."""
        below = self.children()
        status = self.process.wait(within_s)
        eventually(lambda: not [pid for pid in below if is_alive(pid)], 5, "all processes end")
        return status


@contextlib.contextmanager
def starter(place: Path) -> Iterator[Callable[..., Turnout]]:
    """Hand out a function that starts turnout commands in `place`; what still runs at the end is taken down."""
    started: list[Turnout] = []

    def start(*command: str, prefix: Sequence[str] = (), **environment: str) -> Turnout:
        started.append(Turnout(list(command), place, environment, prefix))
        return started[-1]

    yield start
    for one in started:
        below = one.children()
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGCONT)
            one.stop(60)
        eventually(lambda below=below: not [pid for pid in below if is_alive(pid)], 5, "all processes end")
        one.process.stdout.close()
        one.process.stderr.close()


def serving(turnout: Callable[..., Turnout], place: Path) -> Callable[..., Turnout]:
    """Return a function that runs `turnout serve FOLDER` on free ports, with its STATE in `place` and further flags."""

    def start(folder: Path | None, *flags: str, prefix: Sequence[str] = (), **environment: str) -> Turnout:
        named = [str(folder)] if folder else []
        state = () if "--state" in flags else ("--state", str(place / "state"))
        drain = () if "--drain-seconds" in flags else ("--drain-seconds", "3")
        return turnout("serve", *named, *state, *drain, *ANY_PORT, *flags, prefix=prefix, **environment)

    return start
