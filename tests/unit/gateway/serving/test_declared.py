"""A declared signature against the runtime's own."""

import pytest

from adapters.interface import LoadFailed
from gateway.serving.declared import settled
from turnout.core.manifest import DeclaredSignature
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype

X = TensorSpec("x", Datatype.FP32, (-1, -1))
NAME = TensorSpec("name", Datatype.BYTES, (-1,), nullable=True)
Y = TensorSpec("y", Datatype.INT64, (-1,))
TOLD = Signature((X, NAME), (Y,), ignored=("target",))


def test_nothing_declared_is_the_runtimes_word():
    """What is not declared is as the runtime tells."""
    assert settled(TOLD, DeclaredSignature()) == TOLD


def test_declared_half_narrows_and_orders():
    """A declaration fixes axes that the runtime leaves open and sets the order; what may be missing stays."""
    declared = DeclaredSignature(
        inputs=(TensorSpec("name", Datatype.BYTES, (-1, 1)), TensorSpec("x", Datatype.FP32, (-1, 30)))
    )
    found = settled(TOLD, declared)
    assert found.inputs == (NAME, TensorSpec("x", Datatype.FP32, (-1, 30)))
    assert found.outputs == TOLD.outputs
    assert found.ignored == ("target",)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ((X,), "the model's 'name' is not declared"),
        ((X, NAME, TensorSpec("z", Datatype.FP32, (-1,))), "'z' is declared, the model has 'x', 'name'"),
        ((TensorSpec("x", Datatype.FP64, (-1, -1)), NAME), "'x' is declared FP64, the model has FP32"),
        ((TensorSpec("x", Datatype.FP32, (-1,)), NAME), r"'x' is declared \[-1\], the model has \[-1, -1\]"),
    ],
)
def test_contradictions_are_named(inputs, named):
    """A tensor too many, too few or otherwise is refused by name."""
    with pytest.raises(LoadFailed, match=named):
        settled(TOLD, DeclaredSignature(inputs=inputs))


def test_fixed_axis_cannot_be_opened():
    """An axis that the runtime fixes may not be declared free."""
    told = Signature((TensorSpec("x", Datatype.FP32, (1, 16)),), (Y,))
    with pytest.raises(LoadFailed, match=r"the model has \[1, 16\]"):
        settled(told, DeclaredSignature(inputs=(TensorSpec("x", Datatype.FP32, (-1, 16)),)))
