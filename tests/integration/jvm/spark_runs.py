"""What each saved pipeline does in its worker, recorded once: a Spark worker takes seconds to start, a test an instant.

At most two workers run at once.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.integration.jvm.frames_by_hand import PREDICT, Client, Frame, as_text, table, text
from tests.integration.jvm.jvm_worker import Worker, properties, running, source_of
from turnout.core.tensor import Tensor, TensorMap

CALLERS = 8
AT_ONCE = 2
SAMPLES = 20
SLOW_ROWS = 24
# A worker of a test lives too briefly for the second compiler to pay.
QUICK_START = {"flags": ["-XX:TieredStopAtLevel=1"]}

Probe = Callable[[Worker, TensorMap], Awaitable[Any]]


class Plan(msgspec.Struct, frozen=True):
    """How a pipeline is loaded: with golden rows unless `inputs` are declared; and what is asked beside its rows."""

    inputs: Sequence[tuple[str, str, str]] | None = None
    outputs: Sequence[tuple[str, str, str]] | None = None
    options: Mapping[str, Any] = msgspec.field(default_factory=lambda: QUICK_START)
    probe: Probe | None = None
    trusted: bool = True


class Run(msgspec.Struct, frozen=True):
    """What a worker said."""

    loaded: Frame
    reference: dict[str, Any]
    rows: TensorMap
    answers: list[Frame]
    probed: Any
    log: str

    @property
    def properties(self) -> dict[str, str]:
        """Return the properties of LOADED."""
        return properties(self.loaded)

    @property
    def inputs(self) -> list[list[str]]:
        """Return the inputs of LOADED."""
        return table(self.loaded.tensors["inputs"])

    @property
    def outputs(self) -> list[list[str]]:
        """Return the outputs of LOADED."""
        return table(self.loaded.tensors["outputs"])

    @property
    def ignored(self) -> list[str]:
        """Return the ignored inputs of LOADED."""
        return text(self.loaded.tensors["ignored"])


def column(values: list[Any]) -> Tensor:
    """Return a column of a reference as a tensor: vectors, text, or FP64 with NaN for what is missing."""
    if isinstance(values[0], list):
        return Tensor.of(np.array(values, dtype=float))
    if any(isinstance(value, str) for value in values):
        return Tensor.of(as_text(values))
    return Tensor.of(np.array([np.nan if value is None else value for value in values], dtype=float))


def row(rows: TensorMap, start: int, stop: int | None = None) -> TensorMap:
    """Return some rows."""
    return {name: tensor.row_slice(start, start + 1 if stop is None else stop) for name, tensor in rows.items()}


def record(pipelines: Path, folder: Path, scratch: Path, plans: Mapping[str, Plan]) -> dict[str, Run]:
    """Run every plan to its end; raises an ExceptionGroup of all that failed."""

    async def all_of_them() -> list[Run | BaseException]:
        places = asyncio.Semaphore(AT_ONCE)
        runs = (_run(places, pipelines, folder, scratch, *item) for item in plans.items())
        return await asyncio.gather(*runs, return_exceptions=True)

    done = dict(zip(plans, asyncio.run(all_of_them()), strict=True))
    failed = {name: error for name, error in done.items() if isinstance(error, BaseException)}
    if failed:
        raise BaseExceptionGroup(f"failed: {', '.join(failed)}", list(failed.values()))
    return {name: run for name, run in done.items() if isinstance(run, Run)}


async def _run(places: asyncio.Semaphore, pipelines: Path, folder: Path, scratch: Path, name: str, plan: Plan) -> Run:
    async with places:
        path = pipelines / name / "reference.json"
        reference = json.loads(path.read_text()) if path.exists() else {"columns": {}, "answers": []}
        rows = {key: column(values) for key, values in reference["columns"].items()}
        samples = row(rows, 0, SAMPLES) if plan.inputs is None else None
        at = folder / name
        at.mkdir()
        source = source_of(at, pipelines / name, "model", plan.options, scratch=scratch, trusted=plan.trusted)
        async with running(source) as worker:
            loaded = await worker.loaded(inputs=plan.inputs, outputs=plan.outputs, samples=samples)
            count = len(reference["answers"]) if properties(loaded)["mode"] == "folded" else SLOW_ROWS
            answers = await _ask_for_rows(worker, rows, min(count, len(reference["answers"])))
            probed = await plan.probe(worker, rows) if plan.probe is not None else None
            return Run(loaded, reference, rows, answers, probed, worker.log.read_text())


def save_by_hand(folder: Path, stages: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
    """Write a saved PipelineModel: class and parameters of each stage, by its uid."""
    _write_metadata(folder, "org.apache.spark.ml.PipelineModel", "pipeline", {"stageUids": list(stages)})
    for at, (uid, (stage, parameters)) in enumerate(stages.items()):
        _write_metadata(folder / "stages" / f"{at}_{uid}", stage, uid, parameters)


def _write_metadata(folder: Path, saved: str, uid: str, parameters: Mapping[str, Any]) -> None:
    metadata = {"class": saved, "timestamp": 0, "sparkVersion": "4.0.0", "uid": uid, "paramMap": parameters}
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "part-00000").write_text(json.dumps(metadata | {"defaultParamMap": {}}) + "\n")


async def _ask_for_rows(worker: Worker, rows: TensorMap, count: int) -> list[Frame]:
    """Ask for each row by itself, over as many connections as there are callers."""
    answers: list[Frame] = [None] * count  # type: ignore[list-item]  # filled below

    async def caller(first: int) -> None:
        client = await Client.connect(worker.socket)
        for at in range(first, count, CALLERS):
            answers[at] = await client.ask(PREDICT, row(rows, at))
        await client.close()

    await asyncio.gather(*(caller(first) for first in range(CALLERS)))
    return answers
