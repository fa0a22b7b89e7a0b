"""Saved Spark pipelines behind the gateway against Spark's own `transform`: the same answers, much sooner.

The pipelines, their rows and Spark's answers are those of the tests, trained anew. What is not row-wise must say so.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench.campaign.harness import ROOT, Campaign, run
from bench.client import Answer, HttpClient, settled
from bench.launch import Gateway, serve

TRAINING: Final = ROOT / "tests" / "integration" / "jvm" / "train_pipelines.py"
FOLDED: Final = (
    "cancer_lr",
    "cancer_gbt",
    "flights_rf",
    "text_hashing",
    "text_counts",
    "sql_misc",
    "skipping",
    "keeping",
)
SLOW: Final = {
    "aggregate": "window is not row-wise",
    "random": "rand() is nondeterministic",
    "today": "current_date() changes from call to call",
}
DECLARED: Final = {"skipping", "keeping", *SLOW}
"""A golden file cannot hold a dropped row, nor the answers of an aggregate over other rows."""
UNUSED: Final = {"aggregate": {"f1"}}
"""Columns of the rows on which no output depends: they are no inputs."""
CALLERS: Final = 8
ROWS: Final = 300
TOLERANCE: Final = 1e-12
QUICKER: Final = 50
SLOW_ROWS: Final = 24
GOLDEN_ROWS: Final = 20
TIMED: Final = 20
PYSPARK_S: Final = 1200


class Pipeline(msgspec.Struct, frozen=True):
    """A saved pipeline, its raw columns by name, and what `transform` answered: one entry a row, None where dropped."""

    name: str
    folder: Path
    columns: dict[str, list[Any]]
    answers: list[dict[str, Any] | None]

    @property
    def text(self) -> set[str]:
        """Names of the columns that are text."""
        return {name for name, values in self.columns.items() if any(isinstance(value, str) for value in values)}

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The signature of the answers' columns."""
        row = next(answer for answer in self.answers if answer is not None)
        return [self._spec(name, value) for name, value in row.items()]

    def _spec(self, name: str, value: Any) -> dict[str, Any]:
        shape = [-1, len(value)] if isinstance(value, list) else [-1]
        return {"name": name, "datatype": "BYTES" if isinstance(value, str) else "FP64", "shape": shape}

    def inputs(self, rows: slice) -> list[dict[str, Any]]:
        """Return some rows as tensors in JSON; None is missing."""
        return [
            {
                "name": name,
                "datatype": "BYTES" if name in self.text else "FP64",
                "shape": [len(values[rows])],
                "data": values[rows],
            }
            for name, values in self.columns.items()
        ]

    def body(self, start: int, stop: int | None = None) -> bytes:
        """Return a request for one row, or for those up to `stop`."""
        return json.dumps({"inputs": self.inputs(slice(start, stop or start + 1))}).encode()

    def golden(self) -> dict[str, Any]:
        """Return a golden file of the first rows."""
        rows = [answer for answer in self.answers[:GOLDEN_ROWS] if answer is not None]
        outputs = [
            {**spec, "shape": [len(rows), *spec["shape"][1:]], "data": [row[spec["name"]] for row in rows]}
            for spec in self.outputs
        ]
        tolerance = {"abs": TOLERANCE, "rel": 0}
        inputs = self.inputs(slice(len(rows)))
        return {"producer": "Spark's transform", "inputs": inputs, "outputs": outputs, "tolerance": tolerance}

    def manifest(self) -> dict[str, Any]:
        """Return model.yaml: the golden file tells the inputs' types, else they are declared."""
        manifest = {"runtime": "jvm", "artifact": "model", "options": {"kind": "spark"}}
        if self.name not in DECLARED:
            return {**manifest, "signature": {"outputs": self.outputs}, "golden": "golden.json"}
        specs = [{key: tensor[key] for key in ("name", "datatype")} for tensor in self.inputs(slice(0))]
        inputs = [{**spec, "shape": [-1], "nullable": spec["datatype"] == "BYTES"} for spec in specs]
        return {**manifest, "signature": {"inputs": inputs, "outputs": self.outputs}}


def train(folder: Path) -> dict[str, Pipeline]:
    """Train and save every pipeline, and return each with Spark's answers."""
    _python(str(TRAINING), str(folder))
    pipelines = {}
    for name in (*FOLDED, *SLOW):
        reference = json.loads((folder / name / "reference.json").read_text())
        columns = {c: values for c, values in reference["columns"].items() if c not in UNUSED.get(name, ())}
        pipelines[name] = Pipeline(name, folder / name / "model", columns, reference["answers"])
    return pipelines


def write_models(folder: Path, pipelines: dict[str, Pipeline]) -> None:
    """Lay out a model folder: one model a pipeline."""
    for name, pipeline in pipelines.items():
        shutil.copytree(pipeline.folder, folder / name / "model")
        (folder / name / "model.yaml").write_text(json.dumps(pipeline.manifest()))
        if name not in DECLARED:
            (folder / name / "golden.json").write_text(json.dumps(pipeline.golden()))


def row_of(answer: Answer, row: int = 0) -> dict[str, Any]:
    """Return one row of an answer, by output."""
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    return {name: np.array(output["data"]).reshape(output["shape"]).tolist()[row] for name, output in outputs.items()}


def difference(got: dict[str, Any], want: dict[str, Any]) -> float:
    """Return the largest difference of one row; infinity for another text, name or width."""
    worst = 0.0
    for name, wanted in want.items():
        found: Any = got.get(name)
        if isinstance(wanted, str) or np.shape(found) != np.shape(wanted):
            worst = max(worst, 0.0 if found == wanted else float("inf"))
        else:
            apart = np.abs(np.array(found, float) - np.array(wanted, float))
            worst = max(worst, float("inf") if np.isnan(apart).any() else float(np.max(apart)))
    return worst


async def ask_each(gateway: Gateway, pipeline: Pipeline, count: int) -> list[Answer]:
    """Ask for the first `count` rows, each in a request of its own, by eight callers at once."""
    answers: dict[int, Answer] = {}
    pending = iter(range(count))
    async with HttpClient(gateway.http, CALLERS) as door, asyncio.TaskGroup() as group:

        async def caller() -> None:
            for row in pending:
                answers[row] = await door.infer(pipeline.name, pipeline.body(row))

        for _ in range(CALLERS):
            group.create_task(caller())
    return [answers[row] for row in range(count)]


async def metadata(gateway: Gateway, name: str) -> dict[str, Any]:
    """Return a model's metadata."""
    async with HttpClient(gateway.http, 1) as door:
        return dict((await door.call("GET", f"/v2/models/{name}")).json())


async def not_ready(gateway: Gateway) -> dict[str, str]:
    """Return the reasons of models that are not ready once nothing loads any more."""
    async with HttpClient(gateway.http, 1) as door:
        return {entry["name"]: entry["reason"] for entry in await settled(door) if entry["state"] != "READY"}


def judge_folded(campaign: Campaign, gateway: Gateway, pipeline: Pipeline) -> None:
    """Every row equals `transform`, and a row that `transform` drops is refused by name."""
    name = pipeline.name
    told = asyncio.run(metadata(gateway, name))
    campaign.equal(f"{name}: mode", told.get("properties", {}).get("mode"), "folded")
    odd = {spec["name"] for spec in told["inputs"]} ^ set(pipeline.columns)
    campaign.equal(f"{name}: inputs that are no raw column (as the label), or the reverse", sorted(odd), [])
    answers = asyncio.run(ask_each(gateway, pipeline, len(pipeline.answers)))
    pairs = [(answer, want) for answer, want in zip(answers, pipeline.answers, strict=True) if want is not None]
    right = [(answer, want) for answer, want in pairs if answer.status == 200]
    campaign.equal(f"{name}: rows that `transform` answers and the gateway does not", len(pairs) - len(right), 0)
    campaign.at_least(f"{name}: rows compared, eight callers at once", len(right), ROWS)
    worst = max((difference(row_of(answer), want) for answer, want in right), default=float("nan"))
    campaign.at_most(f"{name}: largest difference from `transform`", worst, TOLERANCE)
    dropped = [answer for answer, want in zip(answers, pipeline.answers, strict=True) if want is None]
    named = sum(answer.status == 400 and "row 0: the pipeline drops it" in answer.json()["error"] for answer in dropped)
    campaign.equal(f"{name}: dropped rows that are refused by name, of {len(dropped)}", named, len(dropped))


def judge_slow(campaign: Campaign, gateway: Gateway, pipeline: Pipeline) -> None:
    """Folding is refused with its reason in the metadata; `transform` itself answers."""
    name = pipeline.name
    told = asyncio.run(metadata(gateway, name)).get("properties", {})
    campaign.equal(f"{name}: mode and reason", [told.get("mode"), told.get("slow_reason")], ["transform", SLOW[name]])
    if name == "aggregate":  # its answer depends on all rows of the request
        answer = asyncio.run(ask_all(gateway, pipeline))
        got = [row_of(answer, row) for row in range(len(pipeline.answers))] if answer.status == 200 else []
    else:
        answers = asyncio.run(ask_each(gateway, pipeline, SLOW_ROWS))
        got = [row_of(answer) for answer in answers if answer.status == 200]
    wanted = pipeline.answers if name == "aggregate" else pipeline.answers[:SLOW_ROWS]
    campaign.equal(f"{name}: rows answered", len(got), len(wanted))
    worst = max((difference(row, want or {}) for row, want in zip(got, wanted, strict=False)), default=float("nan"))
    campaign.at_most(f"{name}: largest difference from `transform`", worst, TOLERANCE)


async def ask_all(gateway: Gateway, pipeline: Pipeline) -> Answer:
    """Ask for all rows in one request."""
    async with HttpClient(gateway.http, 1) as door:
        return await door.infer(pipeline.name, pipeline.body(0, len(pipeline.answers)))


async def one_row_s(gateway: Gateway, pipeline: Pipeline, requests: int) -> float:
    """Return the median seconds of a one-row request over the HTTP door, one caller, rows taken in turn."""
    rows = [row for row, want in enumerate(pipeline.answers) if want is not None]
    taken = []
    async with HttpClient(gateway.http, 1) as door:
        for at in range(requests):
            body = pipeline.body(rows[at % len(rows)])
            before = time.perf_counter()
            answer = await door.infer(pipeline.name, body)
            taken.append(time.perf_counter() - before)
            assert answer.status == 200, answer.body
    return statistics.median(taken[requests // 10 :])


TRANSFORM: Final = """
import json, statistics, sys, time
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.shuffle.partitions", "1")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("OFF")
asked = json.loads(sys.stdin.read())
times = {}
for name, plan in asked["pipelines"].items():
    model = PipelineModel.load(plan["path"])._to_java()
    frames = [spark.createDataFrame([tuple(row)], plan["schema"])._jdf for row in plan["rows"]]
    outputs = spark._jvm.PythonUtils.toSeq(plan["outputs"][1:])
    taken = []
    for at in range(asked["warm"] + asked["timed"]):
        before = time.perf_counter()
        model.transform(frames[at % len(frames)]).select(plan["outputs"][0], outputs).collectAsList()
        taken.append(time.perf_counter() - before)
    timed = taken[asked["warm"]:]
    times[name] = [statistics.median(timed), min(timed)]
spark.stop()
print("TIMES " + json.dumps(times))
"""


def transform_s(pipelines: list[Pipeline], timed: int) -> dict[str, tuple[float, float]]:
    """Return median and least seconds of a one-row `transform`, by pipeline: warm, in Spark's JVM, frames at hand."""
    plans = {}
    for pipeline in pipelines:
        answered = [row for row, want in enumerate(pipeline.answers) if want is not None][:GOLDEN_ROWS]
        kinds = {name: "string" if name in pipeline.text else "double" for name in pipeline.columns}
        plans[pipeline.name] = {
            "path": str(pipeline.folder),
            "schema": ", ".join(f"{name} {kind}" for name, kind in kinds.items()),
            "rows": [[values[row] for values in pipeline.columns.values()] for row in answered],
            "outputs": [output["name"] for output in pipeline.outputs],
        }
    asked = json.dumps({"pipelines": plans, "warm": timed, "timed": timed})
    told = _python("-c", TRANSFORM, stdin=asked)
    times = json.loads(told.partition("TIMES ")[2])
    return {name: (median, least) for name, (median, least) in times.items()}


def _python(*arguments: str, stdin: str = "") -> str:
    """Run Python with Spark at hand and return what it prints. Raises RuntimeError with its complaint."""
    command = [sys.executable, "-W", "ignore", *arguments]
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=environment, timeout=PYSPARK_S
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Train, serve all pipelines in one gateway, compare every row, and time one row both ways."""
    with tempfile.TemporaryDirectory() as temporary:
        pipelines = train(Path(temporary, "trained"))
        folder = Path(temporary, "models")
        write_models(folder, pipelines)
        with serve(folder, Path(temporary, "state"), within_s=600) as gateway:
            broken = asyncio.run(not_ready(gateway))
            campaign.equal("pipelines that do not load", broken, {})
            for name in FOLDED:
                judge_folded(campaign, gateway, pipelines[name])
            for name in SLOW:
                judge_slow(campaign, gateway, pipelines[name])
            served = {n: asyncio.run(one_row_s(gateway, pipelines[n], arguments.requests)) for n in FOLDED}
        transformed = transform_s([pipelines[name] for name in FOLDED], TIMED)
    campaign.equal("pipelines served folded", len(served), len(FOLDED))
    campaign.note("one row over HTTP, median ms", {name: round(s * 1e3, 3) for name, s in served.items()})
    campaign.note("one row by transform, median ms", {name: round(t[0] * 1e3, 1) for name, t in transformed.items()})
    campaign.note("one row by transform, least ms", {name: round(t[1] * 1e3, 1) for name, t in transformed.items()})
    for name in FOLDED:
        times = transformed[name][1] / served[name]
        campaign.at_least(f"{name}: median over HTTP quicker than the quickest `transform`, times", times, QUICKER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="timed one-row requests of each pipeline")
    run("spark-parity", check, parser)
