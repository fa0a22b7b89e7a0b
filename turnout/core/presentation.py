"""Between a runtime's tensors and the presented ones: rename, then cast (DESIGN 5). Casts are declared, never silent.

runtime's names -> rename -> cast -> presented. Inputs travel from presented to runtime, outputs the other way.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np

from turnout.core.errors import InvalidInput, ModelFault, NonFinite
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Array, Datatype, Tensor, TensorMap

_EXACT_INTEGER_BITS: Final = {Datatype.FP16: 11, Datatype.BF16: 8, Datatype.FP32: 24, Datatype.FP64: 53}
_LARGEST_FP16: Final = 65_504


class CastError(Exception):
    """An element does not survive a declared cast; `index` is its flat position."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class PresentationError(ValueError):
    """A rename, cast or declared signature that does not fit the runtime's own signature."""


class _Path(msgspec.Struct, frozen=True):
    """How one tensor travels."""

    runtime: TensorSpec
    presented: TensorSpec


class Presentation:
    """The presented signature of a version and the way of its tensors to the runtime and back."""

    def __init__(
        self,
        runtime: Signature,
        *,
        rename_inputs: Mapping[str, str] | None = None,
        rename_outputs: Mapping[str, str] | None = None,
        cast_inputs: Mapping[str, Datatype] | None = None,
        cast_outputs: Mapping[str, Datatype] | None = None,
    ) -> None:
        """Build the paths. Raises PresentationError naming the tensor when a name or cast does not fit."""
        self._inputs = _paths("input", runtime.inputs, rename_inputs or {}, cast_inputs or {})
        self._outputs = _paths("output", runtime.outputs, rename_outputs or {}, cast_outputs or {})
        self.signature = Signature(
            inputs=tuple(path.presented for path in self._inputs.values()),
            outputs=tuple(path.presented for path in self._outputs.values()),
            ignored=runtime.ignored,
        )
        self.is_identity = all(
            path.runtime == path.presented for path in (*self._inputs.values(), *self._outputs.values())
        )

    def to_runtime(self, presented: TensorMap) -> TensorMap:
        """Return checked presented inputs as the runtime takes them. Raises InvalidInput for an inexact integer."""
        if self.is_identity:
            return presented
        converted: dict[str, Tensor] = {}
        for name, path in self._inputs.items():
            try:
                converted[path.runtime.name] = _convert(presented[name], path.presented, path.runtime)
            except CastError as error:
                kind = NonFinite if error.reason.startswith("overflows") else InvalidInput
                raise kind(f"tensor '{name}': element {error.index} {error.reason}") from error
        return converted

    def to_presented(self, runtime: TensorMap, wanted: Iterable[str]) -> TensorMap:
        """Return the wanted runtime outputs as presented. Raises ModelFault for an absent one or an inexact integer.

        Where nothing is renamed or cast the outputs come back as they are, still to be checked.
        """
        if self.is_identity:
            return runtime
        converted: dict[str, Tensor] = {}
        for name in wanted:
            path = self._outputs[name]
            tensor = runtime.get(path.runtime.name)
            if tensor is None:
                raise ModelFault(f"tensor '{name}': the model did not answer it")
            if tensor.datatype is not path.runtime.datatype:
                raise ModelFault(f"tensor '{name}': the model answered {tensor.datatype}, not {path.runtime.datatype}")
            try:
                converted[name] = _convert(tensor, path.runtime, path.presented)
            except CastError as error:
                raise ModelFault(f"tensor '{name}': element {error.index} {error.reason}") from error
        return converted

    def runtime_outputs(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return the runtime's names of the wanted presented outputs."""
        return tuple(self._outputs[name].runtime.name for name in wanted)


def cast(array: Array, source: Datatype, target: Datatype) -> Array:
    """Return `array` in another datatype. Raises CastError where an integer would change or a finite number overflow.

    Floats round to floats; NaN and infinity pass between floats. Everything else must be exact.
    """
    if source is target:
        return array
    if Datatype.BYTES in (source, target):
        raise CastError(0, f"cannot be cast from {source} to {target}")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target.dtype)
        if source.is_float and target.is_float:
            wrong = np.isinf(result) & np.isfinite(array)
            reason = f"overflows {target}"
        elif target.is_float:
            wrong = _inexact_integers(array, target)
            reason = f"is an integer that {target} cannot hold exactly"
        else:
            wrong = _inexact_target_integers(array, result, source, target)
            reason = f"is not a whole number within {target}"
    if wrong.any():
        raise CastError(int(np.flatnonzero(wrong.reshape(-1))[0]), reason)
    return result


def _inexact_integers(array: Array, target: Datatype) -> Array:
    """Tell which integers a float datatype cannot hold: those with more significant bits than its mantissa.

    In whole-array steps: this runs on the loop, and 8 million elements one by one would hold it for seconds.
    """
    mantissa_bits = _EXACT_INTEGER_BITS[target]
    limit = 1 << mantissa_bits
    if array.dtype == np.bool_:
        return np.zeros(array.shape, np.bool_)
    if not array.size or (int(array.max()) <= limit and int(array.min()) >= -limit):
        return np.zeros(array.shape, np.bool_)
    bits = array.astype(np.uint64)  # of a negative one its two's complement, which minus turns back
    magnitude = np.where(array < 0, -bits, bits)
    lowest_bit = magnitude & -magnitude
    inexact = (magnitude >> np.uint64(mantissa_bits) >= lowest_bit) & (lowest_bit > 0)
    if target is Datatype.FP16:
        inexact |= magnitude > np.uint64(_LARGEST_FP16)
    return np.asarray(inexact)


def _inexact_target_integers(array: Array, result: Array, source: Datatype, target: Datatype) -> Array:
    if target is Datatype.BOOL:
        return np.asarray((array != 0) & (array != 1))
    if source is Datatype.BOOL:
        return np.zeros(array.shape, np.bool_)
    limits = np.iinfo(target.dtype)
    if source.is_float:
        wide = array.astype(np.float64)
        # float(max) of 64-bit targets rounds up to 2^63 or 2^64, which itself is out of range: hence `<`.
        below = wide < float(limits.max) + 1.0 if limits.bits < 64 else wide < float(limits.max)
        return np.asarray(~(np.isfinite(wide) & (wide == np.trunc(wide)) & (wide >= float(limits.min)) & below))
    if limits.bits == 64:
        return np.asarray((result < 0) != (array < 0))
    return np.asarray((array < limits.min) | (array > limits.max))


def _convert(tensor: Tensor, source: TensorSpec, target: TensorSpec) -> Tensor:
    if source.datatype is not target.datatype:
        tensor = Tensor(target.datatype, cast(tensor.array, source.datatype, target.datatype))
    if len(tensor.shape) != len(target.shape) and len(target.shape) in (1, 2):
        column = (-1,) if len(target.shape) == 1 else (-1, 1)
        if tensor.array.size == tensor.rows:
            tensor = tensor.reshaped(tensor.array.reshape(column).shape)
    return tensor


def _paths(
    kind: str, specs: Iterable[TensorSpec], rename: Mapping[str, str], casts: Mapping[str, Datatype]
) -> dict[str, _Path]:
    known = {spec.name for spec in specs}
    for name in rename:
        if name not in known:
            raise PresentationError(f"rename: {kind} '{name}' is none of the runtime's ({', '.join(sorted(known))})")
    paths: dict[str, _Path] = {}
    for spec in specs:
        name = rename.get(spec.name, spec.name)
        if name in paths:
            first = paths[name].runtime.name
            raise PresentationError(f"rename: {kind}s '{first}' and '{spec.name}' would both be called '{name}'")
        datatype = casts.get(name, spec.datatype)
        if datatype is not spec.datatype and Datatype.BYTES in (datatype, spec.datatype):
            raise PresentationError(f"cast: {kind} '{name}' cannot be cast between {spec.datatype} and {datatype}")
        paths[name] = _Path(spec, msgspec.structs.replace(spec.normalised(), name=name, datatype=datatype))
    for name in casts:
        if name not in paths:
            raise PresentationError(f"cast: {kind} '{name}' is none of the presented ({', '.join(sorted(paths))})")
    return paths
