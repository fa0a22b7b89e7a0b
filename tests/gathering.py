"""Requests of a real model, held up so that they are gathered into calls as in a busy gateway."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from adapters.interface import LoadedModel
from gateway.limits import Limits
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.loading import Call, Engine
from turnout.core.clock import Deadline
from turnout.core.ids import VersionRef
from turnout.core.manifest import VersionLimits
from turnout.core.presentation import Presentation
from turnout.core.tensor import Tensor, TensorMap

WITHIN_S = 60


async def gathered(
    model: LoadedModel, requests: Sequence[TensorMap], folder: Path
) -> tuple[list[dict[str, Tensor] | BaseException], list[int]]:
    """Send the requests at once; return how each ended, and the rows of each call of the model."""
    engine = Engine(model, Presentation(model.signature), model.signature)
    calls: list[int] = []

    async def run(inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int) -> dict[str, Tensor]:
        calls.append(rows)
        return await engine.predict(inputs, wanted, call, rows)

    admission = Admission(VersionLimits(), Pressure(Limits()))
    numbers = Metrics(folder, 0)
    batcher = Batcher(
        admission, numbers.version(VersionRef("m", 1)), run, model.signature, max_rows=64, calls_at_once=1
    )
    asked = (
        batcher.predict(inputs, engine.outputs, Call("id", Deadline.after(WITHIN_S)), next(iter(inputs.values())).rows)
        for inputs in requests
    )
    ends = await asyncio.gather(*asked, return_exceptions=True)
    numbers.close()
    return list(ends), calls
