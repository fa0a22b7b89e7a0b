"""Which versions are batched: those whose rows are shown, or said, not to depend on each other."""

import asyncio
import itertools
import json

import numpy as np
import pytest

from gateway.serving.stages import Stage
from tests.fakes import SIGNATURE, FakeModel, Gate, entry, numbers, raising, request, route, scored
from tests.waiting import eventually_async
from turnout.core.manifest import Batching
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

DEPENDS = "output 'score' of a row changes with the rows beside it"
UNSHOWN = "no golden file with two rows shows that rows do not depend on each other"


class OneByOne(FakeModel):
    """A model that runs one call at a time, and says so."""

    calls_at_once = 1


def less_the_mean(inputs):
    """Answer each row's distance from the mean of all."""
    return scored({"x": Tensor.of(inputs["x"].array - inputs["x"].array.mean())})


def counting():
    """Return an answer that is another each time."""
    numbers_ = itertools.count()
    return lambda inputs: scored({"x": Tensor.of(inputs["x"].array + next(numbers_))})


def one_answer(inputs):
    """Answer one value, whatever was asked."""
    return {"label": numbers(1, dtype=np.int64), "score": numbers(1.0)}


async def told(plane, model, **fields):
    """Serve a model and return what its metadata says of batching."""
    await plane.serve({"m@1": model}, route("m", "m@1"), entries=[entry("m@1", **fields)])
    return plane.backend.describe("m", 1).properties["batching"]


@pytest.mark.parametrize(
    ("answer", "fields", "said"),
    [
        (scored, {}, "up to 64 rows"),
        (scored, {"batching": Batching(max_rows=9)}, "up to 9 rows"),
        (scored, {"batching": Batching(max_rows=1)}, "off"),
        (scored, {"batching": False}, "off"),
        (less_the_mean, {}, f"off: {DEPENDS}"),
        (less_the_mean, {"batching": False}, "off"),
        (counting(), {}, "off: output 'score' is not the same for the same row twice"),
        (counting(), {"batching": Batching()}, "up to 64 rows"),
        (raising(ValueError("no")), {}, "off: the model did not answer example rows: the model raised ValueError: no"),
        (one_answer, {}, "off: the model did not answer example rows: tensor 'label': 1 rows answered for 2 asked"),
    ],
    ids=str,
)
async def test_rows_are_looked_at_before_a_version_is_ready(plane, answer, fields, said):
    """Made-up rows, together and alone, tell whether requests may be gathered; `false` and a number are obeyed."""
    assert await told(plane, OneByOne(answer), **fields) == said


async def test_rows_that_depend_are_not_gathered_whoever_says_so(plane):
    """Where a number of rows is declared and the opposite is shown, the load is refused with the line to write."""
    plane.models["m@1"] = OneByOne(less_the_mean)
    await plane.follow([entry("m@1", batching=Batching())], [route("m", "m@1")])
    assert plane.pool.get("m@1").stage is Stage.FAILED
    assert plane.report.versions["m@1"].reason == f"batching: {DEPENDS}; write `batching: false`"


async def test_golden_rows_are_asked_where_there_are_some(plane):
    """Rows of the golden file show it for text too, within the file's tolerance; without them text shows nothing."""
    text = Signature((TensorSpec("s", Datatype.BYTES, (-1,)),), SIGNATURE.outputs)
    golden = {
        "producer": "test 1",
        "inputs": [{"name": "s", "datatype": "BYTES", "shape": [3], "data": ["a", "bb", "ccc"]}],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [3], "data": [1, 2, 3]}],
        "tolerance": {"abs": 0.01},
    }
    (plane.folder / "golden.json").write_text(json.dumps(golden))

    def nearly(inputs):
        lengths = np.array([float(len(item)) for item in inputs["s"].array])
        return scored({"x": Tensor.of(lengths + len(lengths) * 0.001)})

    assert await told(plane, OneByOne(nearly, signature=text)) == f"off: {UNSHOWN}"
    plane.pool.keep(())
    assert await told(plane, OneByOne(nearly, signature=text), golden="golden.json", digest="2") == "up to 64 rows"


async def test_what_cannot_be_gathered_is_not(plane):
    """Fixed axes, and adapters that do not say how many calls run at once, leave each request by itself."""
    fixed = Signature((TensorSpec("x", Datatype.FP64, (1,)),), SIGNATURE.outputs)
    assert await told(plane, OneByOne(signature=fixed), batching=Batching()) == "off: axis 0 of some tensor is not rows"
    assert await told(plane, FakeModel(), digest="2") == "off: its adapter does not say how many calls it runs at once"


async def test_gathered_requests_count_as_they_should(plane):
    """One call is one observation of rows and duration; requests, waits and bounds count by request."""
    gate = Gate()
    await plane.serve({"m@1": OneByOne()}, route("m", "m@1"))
    plane.replace_model("m@1", OneByOne(gate))
    tasks = [asyncio.create_task(plane.predict(request([float(number)] * 2))) for number in range(5)]
    await eventually_async(lambda: plane.count("turnout_queue_rows", version="1") == 8)
    before = plane.count("turnout_predict_duration_seconds_count")
    gate.event.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.outputs["score"].array.tolist() for answer in answers] == [[float(n)] * 2 for n in range(5)]
    assert plane.count("turnout_queue_rows", version="1") == 0
    assert plane.count("turnout_batch_rows_count", version="1") == 2
    assert plane.count("turnout_batch_rows_sum", version="1") == 10
    assert plane.count("turnout_predict_duration_seconds_count") == before + 2
    assert plane.count("turnout_requests_total", outcome="ok") == 5
    assert plane.count("turnout_statistics_seconds_total", part="queue") > 0


async def test_faults_of_gathered_requests_are_logged_each(plane, caplog):
    """A model's fault is in the log with the id of the request whose rows it broke on, and of no other."""
    gate = Gate()

    async def picky(inputs):
        await gate(inputs)
        if (inputs["x"].array < 0).any():
            raise ValueError("negative")
        return scored(inputs)

    await plane.serve({"m@1": OneByOne()}, route("m", "m@1"))
    plane.replace_model("m@1", OneByOne(picky))
    values = [1.0, 2.0, -3.0, 4.0]
    tasks = [asyncio.create_task(plane.predict(request([x], request_id=f"id-{x:g}"))) for x in values]
    await eventually_async(lambda: plane.count("turnout_queue_rows", version="1") == 3)
    gate.event.set()
    await asyncio.wait(tasks)
    assert [task.exception() is None for task in tasks] == [True, True, False, True]
    assert "id--3" in caplog.text
    assert "id-2" not in caplog.text
    assert plane.count("turnout_requests_total", outcome="fault") == 1
    assert plane.count("turnout_batch_rows_sum", version="1") == 3


async def test_a_new_snapshot_changes_the_bound(plane):
    """The same bytes with another `batching` are gathered so from then on, without a new load."""
    model = OneByOne()
    assert await told(plane, model) == "up to 64 rows"
    loads = len(plane.adapter.loads)
    assert await told(plane, model, batching=Batching(max_rows=5)) == "up to 5 rows"
    assert await told(plane, model, batching=False) == "off"
    assert await told(plane, model) == "up to 64 rows"
    assert len(plane.adapter.loads) == loads
    assert plane.backend.configuration("m", 1)["dynamic_batching"] == {}
