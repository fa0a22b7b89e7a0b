"""Verdicts hold for any answers: equal rows agree, planted differences are found to the row, sums add up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.routing.compare import Verdict, verdicts
from turnout.core.tensor import Tensor

FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(width=16),
)
TEXTS = st.lists(st.none() | st.binary(max_size=5), min_size=1, max_size=20)


@given(FLOATS)
def test_answer_agrees_with_itself(array):
    """Whatever floats an answer holds, NaN and infinities included, it agrees with itself in every row."""
    tensor = Tensor.of(array)
    assert verdicts({"y": tensor}, {"y": tensor}, {}, tensor.rows) == {Verdict.AGREE: tensor.rows}


@given(TEXTS, st.data())
def test_planted_differences_are_counted(elements, data):
    """Exactly the rows that were changed disagree."""
    champion = np.array(elements, object)
    changed = data.draw(st.sets(st.integers(0, len(elements) - 1)))
    shadow = champion.copy()
    for index in changed:
        shadow[index] = b"other " + (shadow[index] or b"")
    found = verdicts({"y": Tensor.of(champion)}, {"y": Tensor.of(shadow)}, {}, len(elements))
    assert found.get(Verdict.DISAGREE, 0) == len(changed)
    assert sum(found.values()) == len(elements)


@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.float64, 8, elements=st.floats(-1, 1)),
)
def test_tolerance_is_the_documented_one(champion, noise):
    """Numbers agree when they differ by at most 1e-6 plus 1e-5 of the champion's, row by row."""
    shadow = champion + noise * (2e-6 + 2e-5 * np.abs(champion))
    within = np.abs(shadow - champion) <= 1e-6 + 1e-5 * np.abs(champion)
    found = verdicts({"y": Tensor.of(champion)}, {"y": Tensor.of(shadow)}, {}, 8)
    assert found.get(Verdict.AGREE, 0) == int(within.sum())
