"""Checks of tensors against a signature name the tensor and the axis."""

import numpy as np
import pytest

from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.signature import OutputCheck, Signature, TensorSpec, check_inputs, check_shape, incompatibility
from turnout.core.tensor import Datatype, Tensor

ROWS = TensorSpec("x", Datatype.FP32, (-1, 3))
COLUMN = TensorSpec("c", Datatype.BYTES, (-1,), nullable=True)
OUT = TensorSpec("y", Datatype.FP32, (-1,))
SIGNATURE = Signature(inputs=(ROWS, COLUMN), outputs=(OUT,), ignored=("label",))


def tensors(rows: int = 2, **more: Tensor) -> dict[str, Tensor]:
    """Return inputs that fit, and whatever else is given."""
    texts = np.array([b"a"] * rows, dtype=object)
    return {"x": Tensor.of(np.zeros((rows, 3), np.float32)), "c": Tensor(Datatype.BYTES, texts), **more}


def test_fitting_inputs_pass():
    """Inputs that fit come back under their names."""
    assert set(check_inputs(SIGNATURE, tensors())) == {"x", "c"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": Tensor.of(np.zeros((2, 3)))}, "tensor 'x': datatype must be FP32, got FP64"),
        ({"x": Tensor.of(np.zeros((2, 4), np.float32))}, r"tensor 'x': axis 1 must be 3, got 4 in shape \[2, 4\]"),
        ({"x": Tensor.of(np.zeros(3, np.float32))}, r"tensor 'x': rank must be 2 as in \[-1, 3\], got shape \[3\]"),
        ({"x": Tensor.of(np.zeros((1, 3), np.float32))}, "tensor 'c': axis 0 has 2 rows, tensor 'x' has 1"),
        ({"z": Tensor.of(np.zeros(2))}, "tensor 'z': unknown; inputs are 'x', 'c'"),
    ],
)
def test_faults_name_tensor_and_axis(change, reason):
    """Each kind of misfit says what was wanted and what came."""
    with pytest.raises(InvalidInput, match=reason):
        check_inputs(SIGNATURE, tensors(**change))


def test_missing_input_is_named():
    """An input that was not sent is named with those that are known."""
    with pytest.raises(InvalidInput, match="tensor 'c': missing; inputs are 'x', 'c'"):
        check_inputs(SIGNATURE, {"x": tensors()["x"]})


def test_ignored_and_droppable_inputs_are_dropped():
    """A left-in label column, and what other variants take, may be sent."""
    extra = {"label": Tensor.of(np.zeros(2)), "other": Tensor.of(np.zeros(2))}
    assert set(check_inputs(SIGNATURE, tensors(**extra), droppable={"other"})) == {"x", "c"}


def test_missing_strings_need_a_nullable_input():
    """Null in a BYTES input is refused unless the model takes missing strings."""
    strict = Signature(inputs=(TensorSpec("c", Datatype.BYTES, (-1,)),))
    absent = {"c": Tensor(Datatype.BYTES, np.array([b"a", None], dtype=object))}
    with pytest.raises(InvalidInput, match="tensor 'c': element 1 is null"):
        check_inputs(strict, absent)
    assert check_inputs(Signature(inputs=(COLUMN,)), absent)["c"].rows == 2


@pytest.mark.parametrize(("declared", "sent"), [((-1,), (4, 1)), ((-1, 1), (4,))])
def test_a_column_and_a_vector_are_one_shape(declared, sent):
    """[n] and [n, 1] fit each other."""
    spec = TensorSpec("v", Datatype.FP64, declared)
    fitted = check_inputs(Signature(inputs=(spec,)), {"v": Tensor.of(np.zeros(sent))})["v"]
    assert len(fitted.shape) == len(declared)


@pytest.mark.parametrize(
    ("shape", "reason"), [([-1], "axis 0"), ([1] * 33, "rank 33"), ([2, -3], "axis 1"), ([0, 2**70], "limit of")]
)
def test_absurd_shapes_are_refused(shape, reason):
    """Negative axes and absurd ranks never reach numpy."""
    with pytest.raises(InvalidInput, match=reason):
        check_shape("x", shape)


def test_outputs_with_the_wrong_number_of_rows_are_a_model_fault():
    """A model that answers more rows than it was asked breaks its signature."""
    with pytest.raises(ModelFault, match="tensor 'y': 3 rows answered for 2 asked"):
        OutputCheck(SIGNATURE).check({"y": Tensor.of(np.zeros(3, np.float32))}, ["y"], 2)


def test_absent_or_mistyped_outputs_are_a_model_fault():
    """What the model should have said and did not is its fault, not the caller's."""
    with pytest.raises(ModelFault, match="tensor 'y': the model did not answer it"):
        OutputCheck(SIGNATURE).check({}, ["y"], 2)
    with pytest.raises(ModelFault, match="breaks its signature"):
        OutputCheck(SIGNATURE).check({"y": Tensor.of(np.zeros(2))}, ["y"], 2)


def test_subset_inputs_are_compatible_and_others_are_named():
    """A version may take fewer inputs than the route, never others; outputs must be equal."""
    route = {spec.name: spec for spec in SIGNATURE.inputs}
    assert incompatibility(route, Signature(inputs=(ROWS,), outputs=(OUT,)), [OUT]) is None
    odd = TensorSpec("x", Datatype.FP64, (-1, 3))
    assert "input 'x' is FP64" in str(incompatibility(route, Signature(inputs=(odd,), outputs=(OUT,)), [OUT]))
    stranger = TensorSpec("q", Datatype.FP64, (-1,))
    assert "input 'q' is not among" in str(incompatibility(route, Signature(inputs=(stranger,), outputs=(OUT,)), [OUT]))
    assert incompatibility(route, Signature(inputs=(ROWS,)), [OUT]) == "output 'y' is missing"
    two = Signature(inputs=(ROWS,), outputs=(OUT, stranger))
    assert incompatibility(route, two, [OUT]) == "output 'q' is not among the route's outputs"
    other = Signature(inputs=(ROWS,), outputs=(TensorSpec("y", Datatype.FP64, (-1,)),))
    assert incompatibility(route, other, [OUT]) == (
        "output 'y' is FP64 [-1], the route's is FP32 [-1]; add to its model.yaml `cast: {outputs: {y: FP32}}`"
    )


def specs(datatype, *given):
    """Return inputs or outputs of one row each."""
    return tuple(TensorSpec(name, datatype, (-1,)) for name in given)


def test_all_that_does_not_fit_is_told_at_once_with_the_casts_to_add():
    """What a cast cannot mend is told as well, and is not among the casts; odd names are quoted for YAML."""
    route = {spec.name: spec for spec in (*specs(Datatype.FP64, "amount", "no", "a b"), *specs(Datatype.BYTES, "w"))}
    exported = Signature(
        inputs=specs(Datatype.FP32, "amount", "no", "a b", "w"),
        outputs=(*specs(Datatype.INT64, "label"), *specs(Datatype.FP32, "p"), *specs(Datatype.FP32, "more")),
    )
    outputs = [*specs(Datatype.INT64, "label", "gone"), *specs(Datatype.FP64, "p")]
    assert incompatibility(route, exported, outputs) == (
        "input 'amount' is FP32 [-1], the route's is FP64 [-1]; "
        "input 'no' is FP32 [-1], the route's is FP64 [-1]; "
        "input 'a b' is FP32 [-1], the route's is FP64 [-1]; "
        "input 'w' is FP32 [-1], the route's is BYTES [-1]; "
        "output 'gone' is missing; "
        "output 'p' is FP32 [-1], the route's is FP64 [-1]; "
        "output 'more' is not among the route's outputs; "
        'add to its model.yaml `cast: {inputs: {amount: FP64, "no": FP64, "a b": FP64}, outputs: {p: FP64}}`'
    )


def test_a_long_list_of_what_does_not_fit_is_cut():
    """The casts to add stay whole."""
    many = [f"c{number}" for number in range(30)]
    route = {spec.name: spec for spec in specs(Datatype.FP64, *many)}
    told = incompatibility(route, Signature(inputs=specs(Datatype.FP32, *many)), [])
    assert told.count("the route's is") == 20
    assert "; and 10 more; add" in told
    assert told.endswith("c29: FP64}}`")


def test_an_unknown_input_is_named_beside_the_missing_one():
    """A caller who wrote a name wrong sees both names in one answer."""
    with pytest.raises(InvalidInput, match="tensor 'x': missing, and tensor 'X' is unknown; inputs are 'x'"):
        check_inputs(Signature(inputs=(ROWS,)), {"X": Tensor.of(np.zeros((2, 3)))})
