"""Verdicts on a shadow's answers."""

import ml_dtypes
import numpy as np
import pytest

from gateway.routing.compare import Verdict, verdicts
from tests.fakes import numbers, texts
from turnout.core.snapshot import Comparison
from turnout.core.tensor import Tensor

AGREE, DISAGREE, INCOMPARABLE = Verdict.AGREE, Verdict.DISAGREE, Verdict.INCOMPARABLE
NAN, INF = float("nan"), float("inf")


def judged(champion, shadow, policy=None, rows=None):
    """Compare one output `y`."""
    rows = champion.rows if rows is None else rows
    return verdicts({"y": champion}, {"y": shadow}, {"y": policy} if policy else {}, rows)


def test_rows_are_counted_one_by_one():
    """Each row has its own verdict."""
    champion = Tensor.of(np.array([1, 2, 3, 4]))
    assert judged(champion, Tensor.of(np.array([1, 2, 0, 4]))) == {AGREE: 3, DISAGREE: 1}
    assert judged(champion, champion) == {AGREE: 4}
    assert judged(champion, Tensor.of(np.array([0, 0, 0, 0]))) == {DISAGREE: 4}


def test_row_agrees_when_all_outputs_do():
    """One differing output spoils the row, not the others; a matrix row needs all its columns."""
    champion = {"label": numbers(0, 1, 1), "p": Tensor.of(np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]))}
    shadow = {"label": numbers(0, 0, 1), "p": Tensor.of(np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.6]]))}
    assert verdicts(champion, shadow, {}, 3) == {AGREE: 1, DISAGREE: 2}


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        (1.0, 1.0 + 1.0e-5, AGREE),
        (1.0, 1.0 + 1.2e-5, DISAGREE),
        (0.0, 0.9e-6, AGREE),
        (0.0, 1.1e-6, DISAGREE),
        (NAN, NAN, AGREE),
        (NAN, 1.0, DISAGREE),
        (1.0, NAN, DISAGREE),
        (INF, INF, AGREE),
        (INF, -INF, DISAGREE),
        (INF, 1e300, DISAGREE),
        (1e300, INF, DISAGREE),
        (0.0, -0.0, AGREE),
    ],
)
def test_numbers_by_default(left, right, verdict):
    """Floats agree within 1e-6 plus 1e-5 of the champion's; NaN equals NaN, an infinity only itself."""
    assert judged(numbers(left), numbers(right)) == {verdict: 1}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_small_floats_compare(dtype):
    """Every float datatype compares, NaN among them."""
    champion = Tensor.of(np.array([1.0, NAN, 2.0], dtype))
    assert judged(champion, Tensor.of(np.array([1.0, NAN, 3.0], dtype))) == {AGREE: 2, DISAGREE: 1}
    exact = Comparison("exact")
    assert judged(champion, Tensor.of(np.array([1.0, NAN, 3.0], dtype)), exact) == {AGREE: 2, DISAGREE: 1}


def test_classes_are_exact():
    """Text, integers and flags agree only when equal; a missing text equals a missing text."""
    assert judged(texts("a", None, "b"), texts("a", None, "c")) == {AGREE: 2, DISAGREE: 1}
    assert judged(Tensor.of(np.array([True, False])), Tensor.of(np.array([True, True]))) == {AGREE: 1, DISAGREE: 1}
    big = 2**53
    assert judged(Tensor.of(np.array([big])), Tensor.of(np.array([big + 1]))) == {DISAGREE: 1}


def test_policy_replaces_the_default():
    """A route may ask exactness of floats, or tolerate a difference of integers."""
    assert judged(numbers(1.0), numbers(1.0 + 1e-9), Comparison("exact")) == {DISAGREE: 1}
    assert judged(numbers(1.0), numbers(1.4), Comparison("numeric", abs=0.5)) == {AGREE: 1}
    counts = Tensor.of(np.array([100])), Tensor.of(np.array([101]))
    assert judged(*counts, Comparison("numeric", rel=0.02)) == {AGREE: 1}
    assert judged(texts("a"), texts("b"), Comparison("numeric", abs=1.0)) == {DISAGREE: 1}


def test_incomparable_answers():
    """Another shape or datatype, or an absent output, makes all rows incomparable."""
    champion = numbers(1.0, 2.0)
    assert judged(champion, numbers(1.0)) == {INCOMPARABLE: 2}
    assert judged(champion, Tensor.of(np.array([1, 2]))) == {INCOMPARABLE: 2}
    assert verdicts({"y": champion}, {}, {}, 2) == {INCOMPARABLE: 2}


def test_answers_without_rows():
    """An answer whose axis 0 is not rows is one row as a whole; no rows are no verdict."""
    champion = Tensor.of(np.array([[1.0, 2.0]]))
    assert verdicts({"y": champion}, {"y": Tensor.of(np.array([[1.0, 3.0]]))}, {}, None) == {DISAGREE: 1}
    assert verdicts({"y": champion}, {"y": champion}, {}, None) == {AGREE: 1}
    assert judged(numbers(), numbers()) == {}
