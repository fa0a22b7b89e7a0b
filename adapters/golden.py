"""Golden files: what the training side saw, read, compared with what a loaded version answers, and lent as samples.

It must not call a model: serving replays the inputs through the same presented path as real requests.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from adapters.interface import LoadFailed
from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.manifest import DeclaredSignature, Golden, GoldenTensor, GoldenTolerance, Tolerance
from turnout.core.signature import TensorSpec, check_shape
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import Array, Datatype, Tensor, TensorMap

MAX_GOLDEN_BYTES: Final = 64 * 1024 * 1024
_SHOWN: Final = 60


class GoldenCase(msgspec.Struct, frozen=True):
    """A golden file as tensors, in presented names."""

    producer: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    tolerance: GoldenTolerance

    @property
    def rows(self) -> int:
        """Rows of the first input."""
        return next(iter(self.inputs.values())).rows


def read_golden(path: Path) -> GoldenCase:
    """Read a golden file. Raises LoadFailed for one that is unreadable, empty, or lacks tolerance or producer."""
    golden = _decode(path)
    inputs = _tensors(path.name, "input", golden.inputs)
    outputs = _tensors(path.name, "output", golden.outputs)
    for name in golden.tolerance.outputs:
        if name not in outputs:
            raise LoadFailed(f"{path.name}: tolerance names output '{name}', the file has {', '.join(outputs)}")
    return GoldenCase(golden.producer, inputs, outputs, golden.tolerance)


def compare(case: GoldenCase, got: TensorMap) -> str | None:
    """Return the first difference beyond tolerance, naming tensor, row and both values; None where all agree."""
    for name, want in case.outputs.items():
        answered = got.get(name)
        if answered is None:
            return f"golden: output '{name}' is not answered"
        difference = _difference(name, want, answered, case.tolerance.outputs.get(name, case.tolerance))
        if difference is not None:
            return f"golden: {difference} (producer: {case.producer})"
    return None


def samples_for(entry: VersionEntry, directory: Path) -> TensorMap | None:
    """Return the golden inputs under the runtime's names, or None without a golden file. Raises LoadFailed.

    A declared cast is not undone: nobody but the loaded runtime knows its own datatype.
    """
    if entry.golden is None:
        return None
    runtime_names = {presented: name for name, presented in entry.rename.inputs.items()}
    inputs = read_golden(directory / entry.golden).inputs
    return {runtime_names.get(name, name): tensor for name, tensor in inputs.items()}


def runtime_declared(entry: VersionEntry) -> DeclaredSignature:
    """Return the declared signature under the runtime's names; datatypes stay as declared."""
    return DeclaredSignature(
        inputs=_unrenamed(entry.signature.inputs, entry.rename.inputs),
        outputs=_unrenamed(entry.signature.outputs, entry.rename.outputs),
    )


def _unrenamed(specs: tuple[TensorSpec, ...] | None, rename: dict[str, str]) -> tuple[TensorSpec, ...] | None:
    if specs is None:
        return None
    names = {presented: name for name, presented in rename.items()}
    return tuple(msgspec.structs.replace(spec, name=names.get(spec.name, spec.name)) for spec in specs)


def _decode(path: Path) -> Golden:
    try:
        if path.stat().st_size > MAX_GOLDEN_BYTES:
            raise LoadFailed(f"{path.name}: over {MAX_GOLDEN_BYTES} bytes")
        return msgspec.json.decode(path.read_bytes(), type=Golden)
    except OSError as error:
        raise LoadFailed(f"{path.name}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{path.name}: not a golden file: {error}") from error


def _tensors(file: str, kind: str, found: Iterable[GoldenTensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for item in found:
        if item.name in tensors:
            raise LoadFailed(f"{file}: two {kind}s are called '{item.name}'")
        try:
            shape = check_shape(item.name, item.shape)
            tensors[item.name] = json_tensor.decode(item.name, item.datatype, shape, item.data)
        except InvalidInput as error:
            raise LoadFailed(f"{file}: {kind}: {error.message}") from error
    if not tensors:
        raise LoadFailed(f"{file}: it has no {kind}s; an empty golden file proves nothing")
    for name, tensor in tensors.items():
        if not tensor.array.size:
            raise LoadFailed(f"{file}: {kind} '{name}' has no elements; an empty golden file proves nothing")
    return tensors


def _difference(name: str, want: Tensor, got: Tensor, tolerance: Tolerance) -> str | None:
    if got.datatype is not want.datatype:
        return f"output '{name}' is {got.datatype}, the file has {want.datatype}"
    if _shape(got) != _shape(want):
        return f"output '{name}' has shape {list(got.shape)}, the file has {list(want.shape)}"
    wanted, answered = want.array.reshape(-1), got.array.reshape(-1)
    wrong = beyond(wanted, answered, tolerance) if want.datatype.is_float else np.asarray(wanted != answered)
    if not wrong.any():
        return None
    index = int(np.flatnonzero(wrong)[0])
    allowed = f"; allowed abs {tolerance.abs:g} + rel {tolerance.rel:g}" if want.datatype.is_float else ""
    return (
        f"output '{name}' {_place(want, index)}: the file has {_show(want.datatype, wanted[index])}, "
        f"the model answers {_show(want.datatype, answered[index])}{allowed}; "
        f"{int(wrong.sum())} of {wrong.size} values differ"
    )


def beyond(want: Array, got: Array, tolerance: Tolerance) -> Array:
    """Tell which values differ by more than allowed; NaN equals NaN, an infinity only itself."""
    want, got = want.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(got - want) <= tolerance.abs + tolerance.rel * np.abs(want)
    finite = np.isfinite(want) & np.isfinite(got)
    same = (want == got) | (np.isnan(want) & np.isnan(got))
    return np.asarray(~(same | (finite & near)))


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tensor.shape[:1] if len(tensor.shape) == 2 and tensor.shape[1] == 1 else tensor.shape


def _place(tensor: Tensor, index: int) -> str:
    position = [int(axis) for axis in np.unravel_index(index, tensor.shape)] if tensor.shape else [0]
    rest = f", element {position[1:] if len(position) > 2 else position[1]}" if len(_shape(tensor)) > 1 else ""
    return f"row {position[0]}{rest}"


def _show(datatype: Datatype, value: object) -> str:
    if datatype is not Datatype.BYTES:
        return str(value)
    text = repr(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
