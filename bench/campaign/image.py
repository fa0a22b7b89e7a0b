"""Builds both images and runs the Deployment's pod on each: known answers on both doors, inside limits, a clean end.

Where no registry can be reached, --python-image and --jdk-image name stand-ins, and --build and --run-flags what this
machine's engine needs.
"""

import argparse
import asyncio
import json
import math
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.campaign.harness import ROOT, Campaign, run
from bench.campaign.pod import Engine, Pod, size_bytes
from bench.client import GrpcClient, HttpClient, decode_answer, infer_message
from models.flight_delay import lineup, training
from models.flight_delay.features import MODEL
from turnout.core.tensor import join_bytes

TARGETS: Final = {"gateway": "turnout:0.1.0", "gateway-jvm": "turnout:0.1.0-jvm"}
TOLERANCE: Final = 1e-5
READY_S: Final = 180.0
DRAIN_S: Final = 20.0
# Between the end of the drain and the end of the process: workers and control end.
AFTER_DRAIN_S: Final = 5.0


def build(campaign: Campaign, arguments: argparse.Namespace, target: str) -> None:
    """Build one target and note its size."""
    command = [*shlex.split(arguments.build), "--target", target, "--tag", TARGETS[target]]
    command += ["--build-arg", f"PYTHON_IMAGE={arguments.python_image}"]
    command += ["--build-arg", f"JDK_IMAGE={arguments.jdk_image}", str(ROOT)]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    campaign.note(f"{target}: seconds to build", round(time.monotonic() - began, 1))


async def within(pod: Pod, kind: str, seconds: float) -> float:
    """Return the seconds until a probe succeeds; NaN when it does not."""
    port, path = pod.probe(kind)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            async with HttpClient(pod.address(port), 1) as client:
                if (await client.call("GET", path, within_s=2)).status == 200:
                    return time.monotonic() - began
        except (OSError, TimeoutError, RuntimeError):
            pass
        await asyncio.sleep(0.5)
    return math.nan


async def difference(pod: Pod, version: int, golden: dict[str, Any]) -> tuple[float, float]:
    """Return the largest difference from the training side's probabilities, by HTTP and by gRPC."""
    wanted = np.array(next(t["data"] for t in golden["outputs"] if t["name"] == "probabilities"))
    async with HttpClient(pod.address("http"), 1) as client:
        body = json.dumps({"inputs": golden["inputs"]}).encode()
        answer = await client.infer(f"{MODEL}/versions/{version}", body)
    if answer.status != 200:
        return math.nan, math.nan
    got = np.array(next(t["data"] for t in answer.json()["outputs"] if t["name"] == "probabilities"))
    tensors = {t["name"]: (t["datatype"], t["shape"], raw(t)) for t in golden["inputs"]}
    async with GrpcClient(pod.address("grpc")) as grpc_client:
        called = await grpc_client.infer(infer_message(MODEL, tensors, str(version)))
    if called.status:
        return float(np.abs(got - wanted).max()), math.nan
    message = decode_answer(called.body)
    index = [output.name for output in message.outputs].index("probabilities")
    by_grpc = np.frombuffer(message.raw_output_contents[index], "<f8")
    return float(np.abs(got - wanted).max()), float(np.abs(by_grpc - wanted).max())


def raw(tensor: dict[str, Any]) -> bytes:
    """Return a golden tensor's raw bytes."""
    if tensor["datatype"] == "BYTES":
        elements = np.empty(len(tensor["data"]), object)
        elements[:] = [text.encode() for text in tensor["data"]]
        return join_bytes(elements)
    return np.array([math.nan if x is None else x for x in tensor["data"]], "<f8").tobytes()


async def serve(campaign: Campaign, pod: Pod, target: str, parts: tuple[lineup.Part, ...]) -> None:
    """Hold the running pod against what it promises."""
    campaign.at_most(f"{target}: live after, seconds", await within(pod, "startup", READY_S), READY_S)
    campaign.at_most(f"{target}: ready after, seconds", await within(pod, "readiness", READY_S), READY_S)
    for part in parts:
        golden = json.loads((pod.folders["delivered"] / MODEL / str(part.version) / "golden.json").read_text())
        by_http, by_grpc = math.nan, math.nan
        until = time.monotonic() + READY_S
        while math.isnan(by_grpc) and time.monotonic() < until:
            by_http, by_grpc = await difference(pod, part.version, golden)
        campaign.at_most(f"{target}: {part.runtime} over HTTP, difference from training", by_http, TOLERANCE)
        campaign.at_most(f"{target}: {part.runtime} over gRPC, difference from training", by_grpc, TOLERANCE)
    without_canary = [line for line in lineup.routes(parts).splitlines() if "weights:" not in line]
    pod.configure("\n".join(without_canary))
    campaign.at_most(f"{target}: a changed ConfigMap is in force after, seconds", await weightless(pod), 5)


async def weightless(pod: Pod) -> float:
    """Return the seconds until a hundred requests in a row are answered by the champion; NaN after ten seconds."""
    rows = json.loads((ROOT / "examples" / "clients" / "flights.json").read_text())
    began = time.monotonic()
    async with HttpClient(pod.address("http"), 1) as client:
        while time.monotonic() - began < 10:
            since = time.monotonic() - began
            answers = [await client.infer(MODEL, json.dumps(rows).encode()) for _ in range(100)]
            if {answer.headers.get("turnout-version") for answer in answers} == {f"{MODEL}@{lineup.CHAMPION}"}:
                return since
    return math.nan


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Build and run both targets."""
    engine = Engine(arguments.engine, arguments.run_flags)
    programs = (training.SCIKIT, training.SPARK)
    trained = asyncio.run(training.ensure(programs, ROOT / "build" / "flight_delay", {}, lambda *_: None))
    for target, image in TARGETS.items():
        if not arguments.no_build:
            build(campaign, arguments, target)
        size = int(engine.call("image", "inspect", "--format", "{{.Size}}", image))
        campaign.note(f"{target}: size, MiB", round(size / 2**20))
        parts = lineup.parts(with_spark=target == "gateway-jvm")
        with tempfile.TemporaryDirectory() as temporary:
            lineup.assemble(Path(temporary, "models"), parts, trained)
            one(campaign, engine, target, Pod(engine, image, Path(temporary, target)), parts, Path(temporary, "models"))


def one(
    campaign: Campaign, engine: Engine, target: str, pod: Pod, parts: tuple[lineup.Part, ...], models: Path
) -> None:
    """Run the pod on one image from start to end."""
    (models / "routes.yaml").unlink()
    pod.deliver(models)
    pod.configure(lineup.routes(parts))
    try:
        pod.start()
        asyncio.run(serve(campaign, pod, target, parts))
        limit = size_bytes(pod.gateway["resources"]["limits"]["memory"])
        used = engine.call("stats", "--no-stream", "--format", "{{.MemUsage}}", pod.name)
        campaign.note(f"{target}: memory in use, of {limit // 2**20} MiB", used)
        campaign.equal(f"{target}: killed for memory", engine.inspect(pod.name)["State"]["OOMKilled"], False)
        began = time.monotonic()
        campaign.equal(f"{target}: exit status after SIGTERM to process 1", pod.stop(), 0)
        campaign.at_most(f"{target}: seconds to end", time.monotonic() - began, DRAIN_S + AFTER_DRAIN_S)
    except BaseException:
        print(pod.logs())
        raise
    finally:
        pod.remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="podman", help="command of the engine (default: podman)")
    parser.add_argument("--build", default="podman build", help="command that builds, with its flags")
    parser.add_argument("--run-flags", default="", help="flags for every `run`")
    parser.add_argument("--python-image", default="docker.io/library/python:3.11-slim")
    parser.add_argument("--jdk-image", default="docker.io/library/eclipse-temurin:17-jdk")
    parser.add_argument("--no-build", action="store_true", help="take the images that are here")
    run("image", check, parser)
