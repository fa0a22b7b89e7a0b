"""Golden files: what is refused, what counts as equal, and how a difference is told."""

import json

import numpy as np
import pytest

from adapters.golden import compare, read_golden, runtime_declared, samples_for
from adapters.interface import LoadFailed
from turnout.core.manifest import DeclaredSignature, Rename, Runtime
from turnout.core.signature import TensorSpec
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import Datatype, Tensor

X = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]}
Y = {"name": "y", "datatype": "FP64", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}
LABEL = {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 1]}
NAME = {"name": "name", "datatype": "BYTES", "shape": [2], "data": ["red", "blue"]}


def document(**change):
    """Return a golden document with some keys changed; None leaves a key out."""
    whole = {"producer": "trainer 1", "inputs": [X], "outputs": [Y, LABEL, NAME], "tolerance": {"abs": 0.5, "rel": 0.1}}
    return {key: value for key, value in (whole | change).items() if value is not None}


def case(tmp_path, **change):
    """Return a golden case read from a file."""
    (tmp_path / "golden.json").write_text(json.dumps(document(**change)))
    return read_golden(tmp_path / "golden.json")


def answers(**change):
    """Return what the golden file has, with some outputs changed."""
    right = {
        "y": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "label": np.array([0, 1]),
        "name": np.array(["red", "blue"], object),
    }
    return {name: Tensor.of(array) for name, array in (right | change).items()}


def test_a_golden_file_becomes_tensors(tmp_path):
    """Inputs, outputs, producer and row count are read."""
    golden = case(tmp_path)
    assert (golden.producer, golden.rows) == ("trainer 1", 2)
    assert golden.inputs["x"].array.tolist() == [1.0, 2.0]
    assert golden.outputs["name"].array.tolist() == [b"red", b"blue"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"producer": None}, "missing required field `producer`"),
        ({"producer": ""}, "length >= 1"),
        ({"tolerance": None}, "missing required field `tolerance`"),
        ({"tolerance": {"abs": -1}}, ">= 0"),
        ({"tolerance": {"outputs": {"z": {"abs": 1}}}}, "tolerance names output 'z', the file has y, label, name"),
        ({"inputs": []}, "it has no inputs; an empty golden file proves nothing"),
        ({"outputs": []}, "it has no outputs"),
        ({"outputs": [{"name": "y", "datatype": "FP64", "shape": [0], "data": []}]}, "'y' has no elements"),
        ({"inputs": [X, X]}, "two inputs are called 'x'"),
        ({"inputs": [{**X, "shape": [3]}]}, "tensor 'x'"),
        ({"inputs": [{**X, "shape": [-2]}]}, "negative"),
        ({"inputs": [{**X, "datatype": "FP8"}]}, "Invalid enum value 'FP8'"),
        ({"notes": "none"}, "unknown field `notes`"),
    ],
)
def test_files_that_prove_nothing_are_refused(tmp_path, change, reason):
    """A golden file that is empty, or lacks tolerance or producer, or is malformed, is refused by name."""
    with pytest.raises(LoadFailed, match=reason) as caught:
        case(tmp_path, **change)
    assert str(caught.value).startswith("golden.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_what_is_no_golden_file_is_refused(tmp_path, text):
    """Anything but the document is named as such."""
    (tmp_path / "golden.json").write_text(text)
    with pytest.raises(LoadFailed, match=r"golden\.json: not a golden file"):
        read_golden(tmp_path / "golden.json")


def test_a_golden_file_that_is_not_there_is_refused(tmp_path):
    """A missing file is named."""
    with pytest.raises(LoadFailed, match=r"golden\.json: cannot be read"):
        read_golden(tmp_path / "golden.json")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"y": np.array([[1.59, 2.69], [3.79, 3.11]])},
        {"label": np.array([[0], [1]])},
    ],
)
def test_within_tolerance_nothing_differs(tmp_path, change):
    """Values within abs + rel of the file's, and a column in place of a vector, are equal."""
    assert compare(case(tmp_path), answers(**change)) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"y": np.array([[1.0, 2.0], [3.0, 5.0]])},
            "output 'y' row 1, element 1: the file has 4.0, the model answers 5.0",
        ),
        (
            {"y": np.array([[1.0, np.nan], [3.0, 4.0]])},
            "output 'y' row 0, element 1: the file has 2.0, the model answers nan",
        ),
        ({"y": np.array([[1.0, np.inf], [3.0, 4.0]])}, "the model answers inf"),
        ({"label": np.array([0, 2])}, "output 'label' row 1: the file has 1, the model answers 2"),
        ({"name": np.array(["red", None], object)}, "output 'name' row 1: the file has 'blue', the model answers None"),
        ({"label": np.array([0, 1], np.int32)}, "output 'label' is INT32, the file has INT64"),
        ({"label": np.array([0])}, "output 'label' has shape [1], the file has [2]"),
    ],
)
def test_the_first_difference_is_told(tmp_path, change, told):
    """A difference names tensor, row and both values, and the producer of the file."""
    found = compare(case(tmp_path), answers(**change))
    assert told in found
    assert found.endswith("(producer: trainer 1)")


def test_a_missing_output_is_a_difference(tmp_path):
    """An output that is not answered is told."""
    found = compare(case(tmp_path), {name: tensor for name, tensor in answers().items() if name != "y"})
    assert found == "golden: output 'y' is not answered"


def test_an_output_may_have_its_own_tolerance(tmp_path):
    """The tolerance of an output stands in place of the file's; twice as much is too much."""
    golden = case(tmp_path, tolerance={"abs": 100.0, "outputs": {"y": {"abs": 0.001}}})
    assert compare(golden, answers(y=np.array([[1.0005, 2.0], [3.0, 4.0]]))) is None
    assert "allowed abs 0.001 + rel 0" in compare(golden, answers(y=np.array([[1.002, 2.0], [3.0, 4.0]])))


def test_not_a_number_equals_itself(tmp_path):
    """NaN in the file is NaN in the answer, and nothing else."""
    golden = case(tmp_path, outputs=[{"name": "y", "datatype": "FP64", "shape": [1], "data": [None]}])
    assert compare(golden, {"y": Tensor.of(np.array([np.nan]))}) is None
    assert "the file has nan, the model answers 0.0" in compare(golden, {"y": Tensor.of(np.array([0.0]))})


def entry(golden="golden.json"):
    """Return a version whose tensors are renamed."""
    return VersionEntry(
        model="m",
        number=1,
        digest="d",
        runtime=Runtime.PYTHON,
        artifact=".",
        files=(),
        signature=DeclaredSignature(inputs=(TensorSpec("x", Datatype.FP64, (-1,)),)),
        rename=Rename(inputs={"raw_x": "x"}),
        golden=golden,
    )


def test_samples_and_signature_go_back_to_the_runtimes_names(tmp_path):
    """A declared rename is undone for the runtime's own eyes."""
    case(tmp_path)
    assert list(samples_for(entry(), tmp_path)) == ["raw_x"]
    assert samples_for(entry(golden=None), tmp_path) is None
    declared = runtime_declared(entry())
    assert declared.inputs == (TensorSpec("raw_x", Datatype.FP64, (-1,)),)
    assert declared.outputs is None
