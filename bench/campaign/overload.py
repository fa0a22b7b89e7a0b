"""Ten times what a model can do, for a minute: the gateway sheds the rest at once, and is calm right after.

Open loop: requests are sent when they are due and latency runs from then. The gateway and its workers share one core,
the load has the other. A run whose client was late says nothing, and fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench import steady, versions
from bench.campaign.harness import ROOT, Campaign, run
from bench.launch import Gateway, serve
from bench.open_loop import Phase, Plan
from bench.raw_calls import EXPIRED, NONE, OK, OTHER, SHED, infer_grpc, infer_http
from turnout.core.wire import inference_pb2 as pb

CALL_S: Final = 0.002
TIMES: Final = 10
DEADLINES_MS: Final = (20, 200, 2000)
CALM: Final = 0.5
CALM_S: Final = 10.0
CAPACITY_S: Final = 6.0
AFTER_S: Final = 2.0
CALLERS: Final = 8
SERVER_CPU, CLIENT_CPU = "0", "1"
LIMITS: Final = {"in_flight": 8, "queue_rows": 128}
CONNECTIONS: Final = {"http": 1500, "grpc": 4}
LATE_S: Final = 0.005
# Work of the Spark version: so many steps of an interpreted expression take about as long as the ONNX version's call.
SPARK_STEPS: Final = 20_000


def write_onnx(folder: Path) -> None:
    """Write an ONNX version of 2 ms of processor time a call."""
    steady.write(folder, CALL_S)
    (folder / "model.yaml").write_text(json.dumps({"batching": False, "limits": LIMITS}))


def write_spark(folder: Path) -> None:
    """Write a Spark version that computes for some milliseconds a row."""
    steps = f"aggregate(sequence(1, {SPARK_STEPS}), x, (a, i) -> a + sin(i + x) * 1e-9)"
    versions.write_spark_sql({folder: f"SELECT *, {steps} AS value FROM __THIS__"})
    manifest = {
        "runtime": "jvm",
        "artifact": "pipeline",
        "options": {"kind": "spark"},
        "signature": versions.signature(),
        "batching": False,
        "limits": LIMITS,
    }
    (folder / "model.yaml").write_text(json.dumps(manifest))


WRITERS: Final = {"onnx": write_onnx, "spark": write_spark}


def requests(door: str) -> list[bytes]:
    """Return one request for each deadline, the longest last."""
    if door == "http":
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [0.5]}]}).encode()
        return [infer_http("busy", body, f"turnout-deadline-ms: {deadline}") for deadline in DEADLINES_MS]
    message = pb.ModelInferRequest(model_name="busy")
    message.inputs.add(name="x", datatype="FP64", shape=[1])
    message.raw_input_contents.append(np.array([0.5]).tobytes())
    return [infer_grpc(message.SerializeToString(), deadline) for deadline in DEADLINES_MS]


class Load:
    """The client, in a process of its own on a core of its own."""

    def __init__(self, gateway: Gateway, door: str, seed: int) -> None:
        self._address = gateway.http if door == "http" else gateway.grpc
        self._door = door
        self._seed = seed

    def run(self, *phases: Phase) -> dict[str, Any]:
        """Run some phases and return what the client noted."""
        plan = Plan(self._door, self._address, requests(self._door), list(phases), CONNECTIONS[self._door], self._seed)
        with tempfile.TemporaryDirectory() as temporary:
            written, result = Path(temporary, "plan.json"), Path(temporary, "result.npz")
            written.write_bytes(msgspec.json.encode(plan))
            command = ["taskset", "-c", CLIENT_CPU, sys.executable, "-m", "bench.open_loop", str(written), str(result)]
            subprocess.run(command, cwd=ROOT, check=True, timeout=60 + sum(phase.seconds for phase in phases))
            with np.load(result) as noted:
                return dict(noted)


class Watch(threading.Thread):
    """Notes the gateway's memory and processor time once a second."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(daemon=True)
        self.sizes: list[int] = []
        self.busy_s: list[float] = []
        self._gateway = gateway
        self._ended = threading.Event()

    def run(self) -> None:
        """Note until the end."""
        while not self._ended.wait(1.0):
            below = self._gateway.descendants()
            self.sizes.append(sum(map(resident, below)))
            self.busy_s.append(sum(map(busy_s, below)))

    def end(self) -> None:
        """Note no more."""
        self._ended.set()
        self.join()


def resident(pid: int) -> int:
    """Return the resident bytes of a process; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def busy_s(pid: int) -> float:
    """Return the processor seconds of a process so far; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: Any, share: float) -> float:
    """Return a quantile; NaN of nothing."""
    return float(np.quantile(values, share)) if len(values) else float("nan")


def overload(campaign: Campaign, runtime: str, door: str, seconds: float, folder: Path, state: Path) -> None:
    """Measure the capacity, then half of it, ten times of it, and half of it again."""
    with serve(folder, state, cpus=SERVER_CPU, within_s=180) as gateway:
        load = Load(gateway, door, campaign.seed)
        load.run(Phase(3.0, callers=CALLERS))
        watch = Watch(gateway)
        before_s = sum(map(busy_s, gateway.descendants()))
        capacity = float(load.run(Phase(CAPACITY_S, callers=CALLERS))["rate"])
        each_s = (sum(map(busy_s, gateway.descendants())) - before_s) / max(1.0, capacity * CAPACITY_S)
        watch.start()
        calm = Phase(CALM_S, rate=CALM * capacity)
        noted = load.run(calm, Phase(seconds, rate=TIMES * capacity), calm)
        watch.end()
    name, sizes = f"{runtime} {door}", watch.sizes
    good = judge(campaign, name, capacity, seconds, noted)
    # On a machine that others use as well, this tells what the shares of a core hide.
    first, last = int(CALM_S) + 2, int(CALM_S + seconds) - 1
    spent_s = (watch.busy_s[last] - watch.busy_s[first]) / (last - first) * seconds
    campaign.note(f"{name}: processor ms of an answer at capacity", each_s * 1e3)
    campaign.note(f"{name}: the same in the overload, refusals included", spent_s / max(1, good) * 1e3)
    settled = sizes[first:last]
    campaign.note(f"{name}: resident MiB, each 10 s", [size >> 20 for size in sizes[::10]])
    if len(settled) > 1:
        campaign.at_most(f"{name}: growth of memory in the overload, MiB", (settled[-1] - settled[0]) / 2**20, 8.0)


def judge(campaign: Campaign, name: str, capacity: float, seconds: float, noted: dict[str, Any]) -> int:
    """Return the good answers in the overload. Hold what the client noted against the bars."""
    due, outcome = noted["due"], noted["outcome"]
    taken = noted["done"] - due
    late = noted["sent"] - due
    crowd = (due >= CALM_S) & (due < CALM_S + seconds)
    before = (due >= 2.0) & (due < CALM_S)
    after = due >= CALM_S + seconds + AFTER_S
    ok, shed, expired = (outcome == kind for kind in (OK, SHED, EXPIRED))
    good = ok & (taken <= np.asarray(DEADLINES_MS)[noted["kind"]] / 1000)
    campaign.note(f"{name}: capacity, answers a second", capacity)
    campaign.note(f"{name}: client's core busy", float(noted["busy"]))
    campaign.at_most(f"{name}: p99 of the client's lateness, ms (else void)", quantile(late, 0.99) * 1e3, LATE_S * 1e3)
    campaign.note(
        f"{name}: ok, shed, expired in the overload", [int((crowd & kind).sum()) for kind in (ok, shed, expired)]
    )
    for index, deadline in enumerate(DEADLINES_MS):
        campaign.note(f"{name}: good with {deadline} ms", int((crowd & good & (noted["kind"] == index)).sum()))
    goodput = float((crowd & good).sum()) / seconds
    campaign.at_least(f"{name}: goodput over capacity", goodput / capacity, 0.9)
    admitted = max(1, int((crowd & (ok | expired)).sum()))
    campaign.at_most(f"{name}: expired of those admitted", float((crowd & expired).sum()) / admitted, 0.01)
    campaign.at_most(f"{name}: p99 of a refusal, ms", quantile(taken[crowd & shed], 0.99) * 1e3, 10.0)
    campaign.equal(f"{name}: requests without an answer", int((outcome == NONE).sum()), 0)
    campaign.note(f"{name}: what other answers said", noted["odd"].tolist())
    campaign.equal(f"{name}: other answers", int((outcome == OTHER).sum()), 0)
    calm_p99, calm_again_p99 = quantile(taken[before & ok], 0.99), quantile(taken[after & ok], 0.99)
    campaign.note(f"{name}: p99 before and after, ms", [calm_p99 * 1e3, calm_again_p99 * 1e3])
    campaign.note(f"{name}: not ok before and after", [int((part & ~ok).sum()) for part in (before, after)])
    campaign.at_most(f"{name}: p99 two seconds after over before", calm_again_p99 / calm_p99, 1.2)
    return int((crowd & good).sum())


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Overload each runtime over each door, in a gateway of its own."""
    for runtime in arguments.runtimes.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "models")
            WRITERS[runtime](folder / "busy" / "1")
            versions.write_routes(folder, {"busy": {"champion": "busy@1"}})
            for door in arguments.doors.split(","):
                overload(campaign, runtime, door, arguments.seconds, folder, Path(temporary, f"state-{door}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runtimes", default="onnx,spark")
    parser.add_argument("--doors", default="http,grpc")
    run("overload", check, parser)
