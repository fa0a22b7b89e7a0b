"""Rename and cast between the runtime's tensors and the presented ones."""

import sys

import numpy as np
import pytest

from turnout.core.errors import InvalidInput, ModelFault, NonFinite
from turnout.core.presentation import CastError, Presentation, PresentationError, cast
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

RUNTIME = Signature(
    inputs=(TensorSpec("distance", Datatype.FP32, (-1, 1)), TensorSpec("carrier", Datatype.BYTES, (-1, 1))),
    outputs=(TensorSpec("output_label", Datatype.INT64, (-1,)), TensorSpec("p", Datatype.FP32, (-1, 2))),
)


def presentation() -> Presentation:
    """Return one rename and two casts over RUNTIME."""
    return Presentation(
        RUNTIME,
        rename_outputs={"output_label": "label"},
        cast_inputs={"distance": Datatype.FP64},
        cast_outputs={"label": Datatype.INT32},
    )


def test_presented_signature_has_new_names_datatypes_and_flat_columns():
    """Clients see renamed, cast and flattened tensors."""
    signature = presentation().signature
    assert [(s.name, s.datatype, s.shape) for s in signature.inputs] == [
        ("distance", Datatype.FP64, (-1,)),
        ("carrier", Datatype.BYTES, (-1,)),
    ]
    assert [(s.name, s.datatype) for s in signature.outputs] == [("label", Datatype.INT32), ("p", Datatype.FP32)]


def test_inputs_reach_the_runtime_in_its_own_names_datatypes_and_rank():
    """FP64 rounds to FP32 and [n] becomes [n, 1]."""
    text = Tensor(Datatype.BYTES, np.array([b"AA", b"UA"], dtype=object))
    converted = presentation().to_runtime({"distance": Tensor.of(np.array([0.1, 2.0])), "carrier": text})
    assert converted["distance"].shape == (2, 1)
    assert converted["distance"].array[0, 0] == np.float32(0.1)
    assert converted["carrier"].shape == (2, 1)


def test_a_number_beyond_fp32_is_refused_by_name():
    """A declared rounding is no licence to make infinity."""
    text = Tensor(Datatype.BYTES, np.array([b"AA"], dtype=object))
    with pytest.raises(NonFinite, match="tensor 'distance': element 0 overflows FP32"):
        presentation().to_runtime({"distance": Tensor.of(np.array([1e39])), "carrier": text})


def test_outputs_come_back_presented():
    """The runtime's label is presented under its new name and datatype."""
    got = presentation().to_presented({"output_label": Tensor.of(np.array([1, 0]))}, ["label"])
    assert (got["label"].datatype, list(got["label"].array)) == (Datatype.INT32, [1, 0])


def test_an_output_integer_that_does_not_fit_is_a_model_fault():
    """The caller did nothing wrong when the model's number does not fit the declared datatype."""
    with pytest.raises(ModelFault, match="tensor 'label': element 0"):
        presentation().to_presented({"output_label": Tensor.of(np.array([2**40]))}, ["label"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"rename_inputs": {"nope": "x"}},
        {"cast_outputs": {"nope": Datatype.FP32}},
        {"cast_inputs": {"carrier": Datatype.FP32}},
        {"rename_outputs": {"p": "output_label"}},
    ],
)
def test_what_does_not_fit_the_runtime_is_refused(wrong):
    """A rename or cast of an unknown tensor, of text, or onto a taken name is refused at load."""
    with pytest.raises(PresentationError):
        Presentation(RUNTIME, **wrong)


def test_two_tensors_of_one_name_are_both_named():
    """A rename onto a name that another tensor keeps names both; two tensors may still swap names."""
    with pytest.raises(
        PresentationError, match="rename: outputs 'output_label' and 'p' would both be called 'output_label'"
    ):
        Presentation(RUNTIME, rename_outputs={"p": "output_label"})
    swapped = Presentation(RUNTIME, rename_outputs={"p": "output_label", "output_label": "p"})
    assert [spec.name for spec in swapped.signature.outputs] == ["p", "output_label"]


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (2**53 + 1, Datatype.INT64, Datatype.FP64),
        (2**24 + 1, Datatype.INT32, Datatype.FP32),
        (-1, Datatype.INT8, Datatype.UINT8),
        (300, Datatype.INT64, Datatype.UINT8),
        (2**63, Datatype.UINT64, Datatype.INT64),
        (0.5, Datatype.FP64, Datatype.INT32),
        (float("nan"), Datatype.FP64, Datatype.INT64),
        (2.0**63, Datatype.FP64, Datatype.INT64),
        (2, Datatype.INT8, Datatype.BOOL),
        (70000, Datatype.INT32, Datatype.FP16),
    ],
)
def test_inexact_casts_are_refused(value, source, target):
    """Integers never wrap, round or lose a fraction."""
    with pytest.raises(CastError):
        cast(np.array([value], source.dtype), source, target)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (2**53, Datatype.INT64, Datatype.FP64),
        (2**60, Datatype.INT64, Datatype.FP32),
        (-(2.0**63), Datatype.FP64, Datatype.INT64),
        (True, Datatype.BOOL, Datatype.INT64),
        (1, Datatype.INT64, Datatype.BOOL),
        (float("inf"), Datatype.FP64, Datatype.FP32),
        (0.1, Datatype.FP64, Datatype.FP16),
    ],
)
def test_exact_casts_and_rounding_floats_pass(value, source, target):
    """What survives, or rounds between floats as declared, is taken."""
    result = cast(np.array([value], source.dtype), source, target)
    assert result.dtype == target.dtype


def test_a_cast_of_many_integers_does_not_hold_the_loop():
    """The biggest body that the doors take is judged in whole-array steps; element by element it took 6 s."""
    array = np.arange(1_000_000, dtype=np.int64)
    array[-1] = 1 << 30  # beyond what FP32 holds without a look at the bits
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        cast(array, Datatype.INT64, Datatype.FP32)
    finally:
        sys.setprofile(None)
    assert calls < 100


def test_inexact_input_integer_is_the_callers_fault():
    """An integer that the runtime's float cannot hold names tensor and element."""
    runtime = Signature(inputs=(TensorSpec("n", Datatype.FP32, (-1,)),))
    with pytest.raises(InvalidInput, match="tensor 'n': element 1 is an integer that FP32 cannot hold exactly"):
        Presentation(runtime, cast_inputs={"n": Datatype.INT64}).to_runtime({"n": Tensor.of(np.array([1, 2**24 + 1]))})
