"""Finds out, before a version is ready, whether a row's answer is the same whatever rows stand beside it.

Only then may requests be gathered into one call. It must not decide who is batched otherwise, nor keep a model.
"""

import enum
from typing import Final, NamedTuple

import numpy as np

from adapters.golden import GoldenCase, beyond
from adapters.interface import BoundedModel, LoadFailed
from gateway.serving.loading import GOLDEN_S, Call, Engine, zero_row
from turnout.core.clock import Deadline
from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.manifest import Batching, GoldenTolerance, Tolerance
from turnout.core.signature import Signature
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import Tensor, TensorMap

_MOST_ROWS: Final = 4
_USUAL: Final = GoldenTolerance(abs=1e-6, rel=1e-5)


class Rows(enum.Enum):
    """What is known of a version's rows: each is answered for itself, or not; or they cannot be gathered at all."""

    APART = "apart"
    TOGETHER = "together"
    UNKNOWN = "unknown"
    NONE = "none"


class Finding(NamedTuple):
    """What is known, and why: one line for operators."""

    rows: Rows
    reason: str


def most_rows(entry: VersionEntry, finding: Finding) -> int:
    """Return the most rows of one call that gathers requests; 0 for never.

    Where nobody named a number the rows must be shown to be apart. Who names one knows it: the opposite must be shown.
    """
    batching = entry.batching
    if batching is False or finding.rows in (Rows.NONE, Rows.TOGETHER):
        return 0
    if isinstance(batching, Batching):
        return batching.max_rows
    return Batching().max_rows if finding.rows is Rows.APART else 0


def refuse(entry: VersionEntry, finding: Finding) -> None:
    """Raise LoadFailed where rows are to be gathered that are shown to depend on each other."""
    if isinstance(entry.batching, Batching) and finding.rows is Rows.TOGETHER:
        raise LoadFailed(f"batching: {finding.reason}; write `batching: false`")


def has_rows(signature: Signature) -> bool:
    """Tell whether axis 0 of every tensor is rows."""
    return bool(signature.inputs) and all(spec.shape[:1] == (-1,) for spec in (*signature.inputs, *signature.outputs))


async def look(engine: Engine, golden: GoldenCase | None) -> Finding:
    """Ask the model for a few rows together and one by one, and compare the answers.

    The rows are the golden file's, else made up. Raises what says nothing of the rows, as that the worker is gone.
    """
    if not has_rows(engine.signature):
        return Finding(Rows.NONE, "axis 0 of some tensor is not rows")
    if not isinstance(engine.model, BoundedModel):
        return Finding(Rows.NONE, "its adapter does not say how many calls it runs at once")
    inputs = _examples(engine.signature, golden)
    if inputs is None:
        return Finding(Rows.UNKNOWN, "no golden file with two rows shows that rows do not depend on each other")
    try:
        return await _compared(engine, inputs, golden.tolerance if golden is not None else _USUAL)
    except (ModelFault, InvalidInput) as error:
        return Finding(Rows.UNKNOWN, f"the model did not answer example rows: {error.message}")


async def _compared(engine: Engine, inputs: TensorMap, tolerance: GoldenTolerance) -> Finding:
    count = next(iter(inputs.values())).rows
    together = await _ask(engine, inputs, 0, count)
    for row in range(count):
        alone = await _ask(engine, inputs, row, row + 1)
        name = _differing(alone, together, row, tolerance)
        if name is None:
            continue
        if _differing(alone, await _ask(engine, inputs, row, row + 1), 0, tolerance) is not None:
            return Finding(Rows.UNKNOWN, f"output '{name}' is not the same for the same row twice")
        return Finding(Rows.TOGETHER, f"output '{name}' of a row changes with the rows beside it")
    return Finding(Rows.APART, "")


def _examples(signature: Signature, golden: GoldenCase | None) -> dict[str, Tensor] | None:
    """Return two to four rows that differ; None where there are none: no text can be made up."""
    if golden is not None and golden.rows > 1:
        last = golden.rows - 1
        picked = sorted({last * step // (_MOST_ROWS - 1) for step in range(_MOST_ROWS)})
        return {name: Tensor(tensor.datatype, tensor.array[picked]) for name, tensor in golden.inputs.items()}
    zeros = zero_row(signature)
    if zeros is None:
        return None
    return {
        name: Tensor(tensor.datatype, np.concatenate([tensor.array, tensor.array + tensor.datatype.dtype.type(1)]))
        for name, tensor in zeros.items()
    }


async def _ask(engine: Engine, inputs: TensorMap, start: int, stop: int) -> dict[str, Tensor]:
    rows = {name: tensor.row_slice(start, stop) for name, tensor in inputs.items()}
    return await engine.predict(rows, engine.outputs, Call("row-check", Deadline.after(GOLDEN_S)), stop - start)


def _differing(alone: TensorMap, others: TensorMap, row: int, tolerance: GoldenTolerance) -> str | None:
    """Return the first output whose `row` among others is not what it is alone."""
    return next(
        (
            name
            for name, tensor in alone.items()
            if _differs(tensor, others[name].row_slice(row, row + 1), tolerance.outputs.get(name, tolerance))
        ),
        None,
    )


def _differs(alone: Tensor, other: Tensor, tolerance: Tolerance) -> bool:
    if alone.shape != other.shape:
        return True
    if alone.datatype.is_float:
        return bool(beyond(alone.array, other.array, tolerance).any())
    return bool(np.asarray(alone.array != other.array).any())
