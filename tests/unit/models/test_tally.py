"""What the tour's client counts."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.flight_delay.tally import Tally, auc, quantile, wilson
from models.flight_delay.wire import Answers


def test_auc_is_that_of_scikit_learn_with_ties():
    """The area under the curve counts ties half, as the reference does."""
    random = np.random.default_rng(1)
    late = random.integers(0, 20, 500) / 20
    truth = (random.random(500) < late).astype(np.int64)
    assert auc(late, truth) == pytest.approx(roc_auc_score(truth, late), abs=1e-12)


@pytest.mark.parametrize("truth", [[], [1, 1], [0, 0]])
def test_auc_needs_both_classes(truth):
    """Without both classes there is no area."""
    assert math.isnan(auc(np.zeros(len(truth)), np.array(truth, np.int64)))


def test_wilson_interval_holds_the_share():
    """The interval is known for 5 of 100 and never leaves [0, 1]."""
    assert wilson(5, 100) == pytest.approx((0.02154, 0.11175), abs=1e-5)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[1] == pytest.approx(1, abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_quantile_without_values_is_unknown():
    """Nothing measured is not zero."""
    assert math.isnan(quantile([], 0.5))
    assert quantile([1.0, 3.0], 0.5) == 2.0


def test_answers_are_kept_by_flight_and_by_version():
    """Each answer is counted for its version, its protocol and its flights."""
    tally = Tally(5)
    tally.answered(1, 2, "grpc", Answers(np.array([1, 0]), np.array([0.9, 0.2])), 1.5)
    assert (tally.total_requests, tally.total_rows) == (1, 2)
    assert tally.version.tolist() == [0, 2, 2, 0, 0]
    assert tally.label.tolist() == [0, 1, 0, 0, 0]
    assert tally.latencies_ms == {"http": [], "grpc": [1.5]}


def test_repeats_count_equal_labels():
    """Flights asked twice are compared label by label."""
    tally = Tally(3)
    once = Answers(np.array([1, 0, 1]), np.zeros(3))
    tally.compared(1, once, Answers(np.array([1, 1, 1]), np.zeros(3)))
    assert (tally.repeated[1], tally.repeated_equal[1]) == (3, 2)
