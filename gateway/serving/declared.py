"""Holds a version's declared signature against what its runtime tells. Pure."""

from collections.abc import Sequence

import msgspec

from adapters.interface import LoadFailed
from turnout.core.manifest import DeclaredSignature
from turnout.core.signature import Signature, TensorSpec, names


def settled(presented: Signature, declared: DeclaredSignature) -> Signature:
    """Return the signature to serve: each declared half in its own order, where the runtime leaves axes open narrower.

    Raises LoadFailed naming the tensor that is declared otherwise than the runtime tells.
    """
    return Signature(
        inputs=_half("inputs", presented.inputs, declared.inputs),
        outputs=_half("outputs", presented.outputs, declared.outputs),
        ignored=presented.ignored,
    )


def _half(half: str, told: tuple[TensorSpec, ...], declared: Sequence[TensorSpec] | None) -> tuple[TensorSpec, ...]:
    if declared is None:
        return told
    known = {spec.name: spec for spec in told}
    settled_specs: list[TensorSpec] = []
    for wanted in declared:
        found = known.pop(wanted.name, None)
        if found is None:
            raise LoadFailed(f"signature.{half}: '{wanted.name}' is declared, the model has {names(told)}")
        settled_specs.append(_narrowed(half, found, wanted.normalised()))
    if known:
        raise LoadFailed(f"signature.{half}: the model's {names(known.values())} is not declared")
    return tuple(settled_specs)


def _narrowed(half: str, told: TensorSpec, declared: TensorSpec) -> TensorSpec:
    if declared.datatype is not told.datatype:
        raise LoadFailed(
            f"signature.{half}: '{told.name}' is declared {declared.datatype}, the model has {told.datatype}"
        )
    fits = len(declared.shape) == len(told.shape) and all(
        axis in (-1, length) for length, axis in zip(declared.shape, told.shape, strict=True)
    )
    if not fits:
        raise LoadFailed(
            f"signature.{half}: '{told.name}' is declared {list(declared.shape)}, the model has {list(told.shape)}"
        )
    return msgspec.structs.replace(told, shape=declared.shape)
