"""The example of docs/reference/golden.md is what the reader of golden files takes."""

import json

import numpy as np
import pytest

from adapters.golden import compare, read_golden
from adapters.interface import LoadFailed
from tests.docs.blocks import blocks
from turnout.core.tensor import Datatype, Tensor

(EXAMPLE,) = [block.text for block in blocks() if block.file == "docs/reference/golden.md"]


@pytest.fixture
def read(tmp_path):
    """Return a function that reads the example with some keys replaced; None drops a key."""

    def read(**changed):
        document = {key: value for key, value in (json.loads(EXAMPLE) | changed).items() if value is not None}
        (tmp_path / "golden.json").write_text(json.dumps(document))
        return read_golden(tmp_path / "golden.json")

    return read


def _answer(first):
    probabilities = np.array([[first, 0.1], [0.3, 0.7]])
    return {
        "label": Tensor(Datatype.INT64, np.array([0, 1])),
        "probabilities": Tensor(Datatype.FP64, probabilities),
    }


def test_the_example_compares_as_the_page_says(read):
    """The output's own tolerance stands in place of the file's; null is a missing number; `{}` means exact."""
    case = read()
    assert np.isnan(case.inputs["amount"].array[1])
    assert compare(case, _answer(0.9 + 8e-6)) is None
    assert "row 0" in compare(case, _answer(0.9 + 1e-5))
    assert compare(read(tolerance={}), _answer(0.9)) is None
    assert compare(read(tolerance={}), _answer(0.9 + 1e-12)) is not None


@pytest.mark.parametrize(
    "changed",
    [{"producer": None}, {"producer": ""}, {"tolerance": None}, {"inputs": []}, {"outputs": []}, {"more": 1}],
    ids=str,
)
def test_what_the_page_calls_required_is(read, changed):
    """Each of these is refused."""
    with pytest.raises(LoadFailed, match=r"golden\.json"):
        read(**changed)
