"""Batching through the real adapters: gathered answers are those of each request alone, and one bad row fails alone."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import joblib
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from adapters.interface import ModelSource
from gateway.limits import Limits
from gateway.observe.exposition import merged
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving.loading import Call
from gateway.serving.served_version import ServedVersion
from gateway.serving.stages import Stage
from tests.contract.worker_models import java_model, python_model, source
from tests.fakes import numbers, texts
from tests.supervised import held, supervised
from turnout.core.clock import Deadline
from turnout.core.errors import InvalidInput, ModelFault, TurnoutError
from turnout.core.manifest import Batching, Runtime
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import TensorMap, equal_bits

REQUESTS = 40
WORDS = ("late", "early", "on time", "cancelled", "diverted")


class Case(msgspec.Struct, frozen=True):
    """A model, what it is asked, and rows that make it fail with what it says then."""

    runtime: Runtime
    source: ModelSource
    good: list[TensorMap]
    bad: list[tuple[TensorMap, type[TurnoutError], str]]


def text_of(number, rows=1):
    """Return rows of text that differ from request to request."""
    return texts(*(f"{WORDS[(number + row) % 5]} {number}" for row in range(rows)))


def onnx_case(folder):
    """A graph that echoes text beside a sum; text that is not UTF-8 is the caller's fault, an index beyond the table a
    fault of the model.
    """
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["s"], ["echo"]),
            helper.make_node("Gather", ["table", "index"], ["found"]),
            helper.make_node("Add", ["found", "x"], ["sum"]),
        ],
        "batching",
        [
            helper.make_tensor_value_info("s", TensorProto.STRING, ["n"]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("index", TensorProto.INT64, ["n"]),
        ],
        [
            helper.make_tensor_value_info("echo", TensorProto.STRING, ["n"]),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor("table", TensorProto.FLOAT, [5], [0.1, 0.2, 0.3, 0.4, 0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    def rows(number, count=1, index=0):
        x = [float(number + row) for row in range(count)]
        places = [(number + row) % 5 + index for row in range(count)]
        return {
            "s": text_of(number, count),
            "x": numbers(*x, dtype=np.float32),
            "index": numbers(*places, dtype=np.int64),
        }

    refused = rows(7) | {"s": texts(b"\xff")}
    good = [rows(number, 1 + number % 3) for number in range(REQUESTS)]
    bad = [(refused, InvalidInput, "element 0 is not UTF-8"), (rows(3, index=90), ModelFault, "out of")]
    return Case(Runtime.ONNX, source(folder, "model.onnx", {}), good, bad)


def sklearn_case(folder):
    """A classifier of documents; one that is not UTF-8 is the caller's fault."""
    pipeline = make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()).fit(WORDS, [1, 0, 0, 1, 1])
    joblib.dump(pipeline, folder / "model.joblib")
    good = [{"x": text_of(number, 1 + number % 3)} for number in range(REQUESTS)]
    bad = [({"x": texts("late", b"\xff")}, InvalidInput, "element 1 is not UTF-8")]
    return Case(Runtime.SKLEARN, source(folder, "model.joblib", {}), good, bad)


def worker_case(model):
    """The model that every worker serves: it names a negative row, and breaks on 13."""
    good = [held(float(20 + number), hold_ms=2) for number in range(REQUESTS)]
    bad = [(held(-5.0), InvalidInput, "tensor 'x': row 0: must not be negative"), (held(13.0), ModelFault, "thirteen")]
    return Case(Runtime(model.runtime), model.source, good, bad)


CASES = {
    "onnx": onnx_case,
    "sklearn": sklearn_case,
    "python": lambda folder: worker_case(python_model(folder)),
    "jvm": lambda folder: worker_case(java_model(folder)),
}


@asynccontextmanager
async def served(case, folder):
    """Load a version as a gateway process does."""
    entry = VersionEntry(
        model="m",
        number=1,
        digest="sha256:1",
        runtime=case.runtime,
        artifact=str(case.source.artifact),
        files=(),
        batching=Batching(),
        options=case.source.options,
        trusted=True,
    )
    async with AsyncExitStack() as running:
        if case.runtime.uses_worker:
            await running.enter_async_context(supervised(case.source, case.runtime))
        version = ServedVersion(entry, Metrics(folder, 0), lambda _version: None, Pressure(Limits()))
        await version.load(case.source.directory, case.source.socket, case.source.scratch)
        assert version.stage is Stage.READY, version.reason
        yield version
        await version.unload()


def answered_calls(folder):
    """Return how many calls the model has answered."""
    samples = [sample for family in merged(folder) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "turnout_batch_rows_count")


@pytest.mark.parametrize("laid_out", CASES.values(), ids=CASES)
async def test_gathered_answers_are_those_of_each_alone(laid_out, tmp_path):
    """Bit for bit, whoever stands beside; a bad one gets the failure that it gets alone, and nobody else notices."""
    case = laid_out(tmp_path)
    metrics_folder = tmp_path / "metrics"
    metrics_folder.mkdir()
    async with served(case, metrics_folder) as version:
        outputs = version.engine.outputs

        async def ask(inputs, wanted=outputs):
            rows = next(iter(inputs.values())).rows
            return await version.predict(inputs, wanted, Call("id", Deadline.after(30)), rows)

        alone = [await ask(inputs) for inputs in case.good]
        calls = answered_calls(metrics_folder)
        mixed = [inputs for inputs, *_ in case.bad]
        wanted = [outputs if number % 3 else outputs[-1:] for number in range(REQUESTS)]
        asked = [ask(inputs, names) for inputs, names in zip(case.good, wanted, strict=True)]
        asked[REQUESTS // 2 : REQUESTS // 2] = [ask(inputs) for inputs in mixed]
        ends = await asyncio.gather(*asked, return_exceptions=True)
        bad = ends[REQUESTS // 2 : REQUESTS // 2 + len(mixed)]
        del ends[REQUESTS // 2 : REQUESTS // 2 + len(mixed)]
        for names, together, by_itself in zip(wanted, ends, alone, strict=True):
            assert list(together) == list(names)
            assert all(equal_bits(together[name], by_itself[name]) for name in names)
        for end, (_, kind, message) in zip(bad, case.bad, strict=True):
            assert type(end) is kind
            assert message in end.message
        assert answered_calls(metrics_folder) - calls < REQUESTS / 2
