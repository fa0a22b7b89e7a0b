"""Callers that leave while their requests are queued, in the gateway or in a worker: none of them is ever run.

The models count for themselves: each run writes down the row that it got, and when. The first call of a round holds
the model; the others queue, leave, and must leave no trace.
"""

import argparse
import asyncio
import json
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.campaign.shadow import metric
from bench.client import HttpClient
from bench.launch import Gateway, serve
from bench.raw_calls import CANCELLED, PREFACE, frame, infer_grpc, infer_http, on_stream
from turnout.core.wire import inference_pb2 as pb

CALLERS: Final = 10_000
AT_ONCE: Final = 500
WITHIN_S: Final = 60.0
LIMITS: Final = {"in_flight": 64, "queue_rows": 2 * AT_ONCE}
FIRST: Final = -1.0
LAST: Final = -2.0

PYTHON: Final = '''"""A model that writes down its runs, and waits while a file called `hold` is there."""

import os
import time
from pathlib import Path

{imports}
HERE = Path({here!r})


class Counting{bases}:
    """Answers what it gets."""

    def fit(self, x, y):
        """Know how wide a row is."""
        self.n_features_in_ = 1
        return self

    def predict(self, x):
        """Write the row down, then wait."""
        x = x[{row}]
        with open(HERE / "runs", "a") as runs:
            runs.write(f"{{float(x.ravel()[0])}} {{time.time()}}\\n")
        ends_s = time.perf_counter() + 0.001
        while time.perf_counter() < ends_s:  # a quicker model would run, and wait, on the gateway's loop
            pass
        while os.path.exists(HERE / "hold"):
            time.sleep(0.005)
        return {answer}
'''
JAVA: Final = """import dev.turnout.spi.*;
import java.nio.file.*;
import java.util.List;
import java.util.Map;

/** Writes down its runs, and waits while a file called hold is there. */
public final class CountingModel implements Model {
    private static final Path HERE = Path.of("%s");

    @Override
    public void load(Path directory, Map<String, String> options) {}

    @Override
    public List<TensorSpec> inputs() {
        return List.of(TensorSpec.of("x", Datatype.FP64, -1));
    }

    @Override
    public List<TensorSpec> outputs() {
        return List.of(TensorSpec.of("value", Datatype.FP64, -1));
    }

    @Override
    public Batch predict(Batch inputs) {
        double[] values = inputs.get("x").doubles();
        try {
            String line = values[0] + " " + System.currentTimeMillis() / 1000.0 + "\\n";
            Files.writeString(HERE.resolve("runs"), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            while (Files.exists(HERE.resolve("hold"))) {
                Thread.sleep(5);
            }
        } catch (java.io.IOException | InterruptedException error) {
            throw new IllegalStateException(error);
        }
        return Batch.of("value", Tensor.ofDoubles(values));
    }
}
"""


def write_python(folder: Path, here: Path) -> None:
    """Write a version of the Python worker."""
    folder.mkdir(parents=True)
    text = PYTHON.format(imports="", bases="", here=str(here), row='"x"', answer='{"value": x}')
    (folder / "counting_worker.py").write_text(text)
    manifest = {
        "runtime": "python",
        "artifact": "counting_worker.py",
        "options": {"class": "counting_worker:Counting"},
        "signature": versions.signature(),
    }
    _write_manifest(folder, manifest)


def write_spi(folder: Path, here: Path) -> None:
    """Write a version of the JVM worker."""
    folder.mkdir(parents=True)
    versions.build_jar(folder / "model.jar", {"CountingModel": JAVA % here})
    _write_manifest(folder, {"runtime": "jvm", "artifact": ".", "options": {"kind": "spi", "jars": ["model.jar"]}})


def write_in_process(folder: Path, here: Path) -> None:
    """Write a scikit-learn version, whose module stands in `here`."""
    import joblib  # noqa: PLC0415  only checks that write models pay for it

    folder.mkdir(parents=True)
    imports, bases = "from sklearn.base import BaseEstimator, RegressorMixin\n", "(RegressorMixin, BaseEstimator)"
    text = PYTHON.format(imports=imports, bases=bases, here=str(here), row=":", answer="x.ravel()")
    (here / "counting_in_process.py").write_text(text)
    sys.path.insert(0, str(here))
    try:
        import counting_in_process  # type: ignore[import-not-found]  # noqa: PLC0415  written just now

        joblib.dump(counting_in_process.Counting().fit(None, None), folder / "model.joblib")
    finally:
        sys.path.remove(str(here))
        sys.modules.pop("counting_in_process", None)
    _write_manifest(folder, {"runtime": "sklearn", "artifact": "model.joblib"})


def _write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    (folder / "model.yaml").write_text(json.dumps({**manifest, "batching": False, "limits": LIMITS}))


KINDS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "python": write_python,
    "spi": write_spi,
    "in-process": write_in_process,
}


class Found(msgspec.Struct):
    """What the rounds of one kind and door came to."""

    callers: int = 0
    cancelled: int = 0
    started: int = 0
    late: int = 0
    lost: int = 0


class Round:
    """One round: a call that holds the model, many that queue behind it and leave."""

    def __init__(self, gateway: Gateway, model: str, here: Path, door: str, found: Found) -> None:
        self._gateway = gateway
        self._model = model
        self._here = here
        self._door = door
        self._found = found

    async def run(self, callers: int) -> None:
        """Hold, queue, leave, let go; then one call more must be answered."""
        hold, runs = self._here / "hold", self._here / "runs"
        runs.write_text("")
        hold.touch()
        async with HttpClient(self._gateway.http, 2) as http:
            first = asyncio.ensure_future(http.infer(self._model, body(FIRST), within_s=2 * WITHIN_S))
            await self._until(lambda: FIRST in written(runs))
            writers = await self._queue(callers)
            await self._until(lambda: self._in_flight() == callers + 1)
            await self._leave(writers)
            await self._until(lambda: self._in_flight() == 1)
            await asyncio.sleep(0.05)  # the workers' own queues hear of it a turn later
            left_s = time.time()
            hold.unlink()
            self._found.lost += (await first).status != 200
            self._found.lost += (await http.infer(self._model, body(LAST), within_s=WITHIN_S)).status != 200
        others = {row: at_s for row, at_s in written(runs).items() if row not in (FIRST, LAST)}
        self._found.callers += callers
        self._found.started += len(others)
        self._found.late += sum(at_s > left_s for at_s in others.values())

    async def _queue(self, callers: int) -> list[asyncio.StreamWriter]:
        """Send so many requests; over HTTP each on a connection of its own, over gRPC all on two."""
        host, _, port = (self._gateway.http if self._door == "http" else self._gateway.grpc).rpartition(":")
        count = callers if self._door == "http" else 2
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
        writers = [writer for _, writer in opened]
        if self._door == "http":
            for number, writer in enumerate(writers):
                writer.write(infer_http(self._model, body(float(number))))
        else:
            for writer in writers:
                writer.write(PREFACE + frame(4, 0, b""))
            for number in range(callers):
                call = infer_grpc(message(self._model, float(number)), 120_000)
                writers[number % 2].write(on_stream(call, 1 + 2 * (number // 2)))
        for writer in writers:
            await writer.drain()
        return writers

    async def _leave(self, writers: list[asyncio.StreamWriter]) -> None:
        """Leave: by closing connections, and over gRPC half of the callers by cancelling."""
        if self._door == "grpc":
            streams = b"".join(frame(3, 1 + 2 * number, struct.pack(">I", CANCELLED)) for number in range(AT_ONCE // 2))
            writers[0].write(streams)
            await writers[0].drain()
        for writer in writers[1 if self._door == "grpc" else 0 :]:
            writer.transport.abort()
        if self._door == "grpc":
            await self._until(lambda: self._in_flight() == 1)
            writers[0].transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    def _in_flight(self) -> int:
        return int(metric(self._gateway, "turnout_in_flight", route=self._model))

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not await asyncio.to_thread(reached):
                await asyncio.sleep(0.02)


def body(value: float) -> bytes:
    """Return the JSON of one row."""
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}]}).encode()


def message(model: str, value: float) -> bytes:
    """Return the ModelInferRequest of one row."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP64", shape=[1])
    request.raw_input_contents.append(struct.pack("<d", value))
    return request.SerializeToString()


def written(runs: Path) -> dict[float, float]:
    """Return the rows that the model ran, each with when."""
    lines = [line.split() for line in runs.read_text().splitlines()]
    return {float(line[0]): float(line[1]) for line in lines if len(line) == 2}


def leave(kinds: Sequence[str], doors: Sequence[str], callers: int, root: Path) -> dict[tuple[str, str], Found]:
    """Have so many callers leave each kind of model over each door, some hundreds at a time; return what was found."""
    here = {kind: root / f"here-{kind}" for kind in kinds}
    for kind in kinds:
        here[kind].mkdir(parents=True)
        KINDS[kind](root / "models" / kind / "1", here[kind])
    routes = {kind: {"champion": f"{kind}@1", "deadline_ms": 120_000} for kind in kinds}
    versions.write_routes(root / "models", routes)
    path = {"PYTHONPATH": ":".join(map(str, here.values()))}
    found = {(kind, door): Found() for kind in kinds for door in doors}
    with serve(root / "models", root / "state", within_s=120, environment=path) as gateway:
        for (kind, door), noted in found.items():
            for left in range(callers, 0, -AT_ONCE):
                asyncio.run(Round(gateway, kind, here[kind], door, noted).run(min(AT_ONCE, left)))
            labels = {"route": kind, "protocol": door, "outcome": "cancelled"}
            noted.cancelled = int(metric(gateway, "turnout_requests_total", **labels))
    return found


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Have callers leave each kind of model over both doors."""
    kinds, doors = arguments.kinds.split(","), arguments.doors.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        for (kind, door), found in leave(kinds, doors, arguments.callers, Path(temporary)).items():
            name = f"{kind} {door}"
            campaign.equal(f"{name}: callers that left while queued", found.callers, arguments.callers)
            campaign.equal(f"{name}: counted as cancelled", found.cancelled, arguments.callers)
            campaign.note(f"{name}: runs of theirs that had begun", found.started)
            campaign.equal(f"{name}: runs started after the cancel", found.late, 0)
            campaign.equal(f"{name}: other calls lost", found.lost, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--kinds", default="python,spi,in-process")
    parser.add_argument("--doors", default="http,grpc")
    run("disconnects", check, parser)
