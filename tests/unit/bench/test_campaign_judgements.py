"""How long checks judge what they saw: each must tell a wrong answer from a right one."""

import json
import math

import pytest

from bench import lines
from bench.campaign import datatypes, golden, route_changes, spark_parity
from bench.client import Answer

CHANGES = [
    route_changes.Change(10.0, 12.0, 1, frozenset({1}), frozenset()),
    route_changes.Change(13.0, 15.0, 2, frozenset({2}), frozenset()),
]


def seen(sent_s, version, generation):
    """Return one answered request."""
    return route_changes.Seen(sent_s, version, generation)


def test_an_answer_is_late_only_between_a_second_after_a_change_and_the_next():
    """A version without weight may answer until a second after the change, and again once the next was written."""
    allowed = [seen(10.9, 2, 0), seen(11.5, 1, 1), seen(12.5, 2, 2)]
    assert route_changes.late_from_zero(allowed, CHANGES) == (1, 0)
    assert route_changes.late_from_zero([*allowed, seen(11.2, 2, 1), seen(14.5, 1, 2)], CHANGES) == (3, 2)


def test_an_answer_must_be_of_a_version_with_weight_in_its_generation():
    """The generation that an answer carries says which versions may have given it."""
    assert route_changes.outside_generation([seen(0, 1, 1), seen(0, 2, 2), seen(0, 9, 0)], CHANGES) == 0
    assert route_changes.outside_generation([seen(0, 2, 1)], CHANGES) == 1


@pytest.fixture
def moved():
    """Return inputs and the case of a golden value moved by twice its tolerance."""
    return [1.0, 2.0, 3.0], golden.Case(3, golden.BOUNDS[0], 2.0, 1)


def test_a_refusal_must_name_tensor_row_and_both_values(moved):
    """Each part that a reason leaves out is told."""
    inputs, case = moved
    file, model = case.values(inputs)[1], lines.value_at(2.0)
    reason = f"golden: output 'value' row 1: the file has {file}, the model answers {model}; allowed"
    assert golden.faults_of(reason, case, inputs) == []
    assert golden.faults_of(reason.replace("row 1", "row 0"), case, inputs) == ["row"]
    assert golden.faults_of(reason.replace(f"answers {model}", "answers 0.5"), case, inputs) == ["the model's value"]
    assert golden.faults_of("the model failed", case, inputs) == [
        "tensor",
        "row",
        "the file's value",
        "the model's value",
    ]


def test_half_a_tolerance_loads_and_twice_is_refused():
    """Each way to write a tolerance is tried on both sides of it."""
    for bound in golden.BOUNDS:
        assert not golden.Case(1, bound, -0.5, 0).refused
        assert golden.Case(1, bound, -2.0, 0).refused
        assert golden.Case(1, bound, 0.5, 0).values([4.0])[0] != lines.value_at(4.0)


@pytest.mark.parametrize(
    ("got", "worst"),
    [
        ({"prediction": 1.0, "probability": [0.25, 0.75], "answer": "late"}, 0.0),
        ({"prediction": 1.0, "probability": [0.5, 0.5], "answer": "late"}, 0.25),
        ({"prediction": 1.0, "probability": [0.25, 0.75], "answer": "on time"}, math.inf),
        ({"prediction": 1.0, "probability": [0.25], "answer": "late"}, math.inf),
        ({"prediction": None, "probability": [0.25, 0.75], "answer": "late"}, math.inf),
        ({"probability": [0.25, 0.75], "answer": "late"}, math.inf),
    ],
)
def test_a_row_differs_by_its_worst_value(got, worst):
    """Numbers differ by how far they lie apart; another text, width or a missing output is no agreement at all."""
    want = {"prediction": 1.0, "probability": [0.25, 0.75], "answer": "late"}
    assert spark_parity.difference(got, want) == worst


def test_rows_of_an_answer_are_taken_by_shape():
    """A row of a matrix is one of its rows, however flat its data travel."""
    output = {"name": "probability", "datatype": "FP64", "shape": [2, 2], "data": [0.1, 0.9, 0.2, 0.8]}
    answer = Answer(200, {}, json.dumps({"outputs": [output]}).encode())
    assert spark_parity.row_of(answer, 1) == {"probability": [0.2, 0.8]}


def test_the_page_has_a_mark_in_every_cell():
    """A round trip is shown as such, and one refusal has one number for all the datatypes that share it."""
    cells = [
        datatypes.Cell(runtime, datatype, transport, outcome_of(datatype, transport))
        for runtime in datatypes.RUNTIMES
        for datatype in datatypes.Datatype
        for transport in datatypes.TRANSPORTS
    ]
    page = datatypes.page(cells)
    assert page.count("| BF16 | (1) | = | = | = |") == len(datatypes.RUNTIMES)
    assert page.count("| FP16 | (1) | = | = | = |") == len(datatypes.RUNTIMES)
    assert page.endswith("## Refusals\n\n1. tensor 'x': DATATYPE has no JSON form\n")


def outcome_of(datatype, transport):
    """Return what a gateway would say that refuses half floats in JSON."""
    half = datatype in ("FP16", "BF16") and transport == "JSON"
    return f"refused: tensor 'x': {datatype} has no JSON form" if half else datatypes.EXACT
