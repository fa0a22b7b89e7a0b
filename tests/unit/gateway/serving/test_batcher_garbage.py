"""What the batcher keeps of an answered request: nothing, or tensors would pile up between collections."""

import asyncio
import gc
import weakref

import numpy as np

from gateway.limits import Limits
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.loading import Call
from tests.fakes import SIGNATURE, numbers, scored
from turnout.core.clock import Deadline
from turnout.core.ids import VersionRef
from turnout.core.manifest import VersionLimits


async def test_requests_of_one_call_are_freed_with_their_answers(tmp_path):
    """Several are gathered into one call; afterwards none of their tensors is left to the collector."""

    async def run(inputs, wanted, call, rows):
        await asyncio.sleep(0)
        call.predict_s = 0.001
        return scored(inputs)

    (tmp_path / "metrics").mkdir()
    metrics = Metrics(tmp_path / "metrics", 0).version(VersionRef("m", 1))
    admission = Admission(VersionLimits(), Pressure(Limits()))
    batcher = Batcher(admission, metrics, run, SIGNATURE, max_rows=8, calls_at_once=1)
    sent = []

    async def ask(value):
        tensor = numbers(value)
        sent.append(weakref.ref(tensor.array))
        answer = await batcher.predict({"x": tensor}, ("score",), Call(f"id-{value}", Deadline.after(60), None), 1)
        np.testing.assert_array_equal(answer["score"].array, [value])

    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*(ask(float(value)) for value in range(8)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert [array() for array in sent] == [None] * 8
    finally:
        gc.enable()
