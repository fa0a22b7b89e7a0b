"""Compares a shadow's answer with the champion's, row by row. Pure: numbers in, verdicts out."""

import enum
from collections.abc import Mapping

import numpy as np

from turnout.core.snapshot import EXACT, NUMERIC, Comparison
from turnout.core.tensor import Array, Datatype, Tensor, TensorMap


class Verdict(enum.StrEnum):
    """What a row of a shadow's answer is worth. `ERROR`: the shadow did not answer."""

    AGREE = "agree"
    DISAGREE = "disagree"
    ERROR = "error"
    INCOMPARABLE = "incomparable"


def verdicts(
    champion: TensorMap, shadow: TensorMap, policy: Mapping[str, Comparison], rows: int | None
) -> dict[Verdict, int]:
    """Return how many rows got which verdict. A row agrees when each output that the champion answered does.

    `rows` is None where axis 0 is not rows: the whole answer is one row then. Outputs without a policy are compared
    exactly, floats within 1e-6 + 1e-5 of the champion's value. NaN equals NaN, an infinity only itself.
    """
    count = 1 if rows is None else rows
    if count == 0:
        return {}
    agree = np.ones(count, np.bool_)
    for name, expected in champion.items():
        answered = shadow.get(name)
        if answered is None or answered.datatype is not expected.datatype or answered.shape != expected.shape:
            return {Verdict.INCOMPARABLE: count}
        if _is_identical(expected, answered):
            continue
        same = _same(expected, answered, policy.get(name) or (NUMERIC if expected.datatype.is_float else EXACT))
        by_row = rows is not None and same.ndim > 0 and same.shape[0] == rows
        agree &= same.reshape(count, -1).all(axis=1) if by_row else same.all()
    agreed = int(agree.sum())
    return {
        verdict: number for verdict, number in ((Verdict.AGREE, agreed), (Verdict.DISAGREE, count - agreed)) if number
    }


def _is_identical(expected: Tensor, answered: Tensor) -> bool:
    """Tell whether numbers have the same bits: then they agree by every measure, and most do."""
    if expected.datatype is Datatype.BYTES:
        return False
    return expected.array.tobytes() == answered.array.tobytes()


def _same(expected: Tensor, answered: Tensor, how: Comparison) -> Array:
    left, right = expected.array, answered.array
    if how.kind == "numeric" and expected.datatype is not Datatype.BYTES:
        return _near(left.astype(np.float64), right.astype(np.float64), how)
    same = np.asarray(left == right)
    if expected.datatype.is_float:
        same |= np.isnan(left) & np.isnan(right)
    return same.astype(np.bool_)


def _near(left: Array, right: Array, how: Comparison) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(right - left) <= how.abs + how.rel * np.abs(left)
    near &= np.isfinite(left) & np.isfinite(right)
    return np.asarray(near | (left == right) | (np.isnan(left) & np.isnan(right)))
