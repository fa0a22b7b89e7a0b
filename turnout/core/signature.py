"""What a model takes and answers, and the check of tensors against it. Faults name the tensor and the axis."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, Self, TypeAlias

import msgspec

from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.tensor import MAX_ELEMENTS, MAX_RANK, Datatype, Tensor, TensorMap


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A declared tensor. In `shape`, -1 is any length; axis 0 is rows. `nullable`: BYTES elements may be missing."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    nullable: bool = False

    def normalised(self) -> Self:
        """Return the spec in presented form: `[-1, 1]` is written `[-1]` (DESIGN 5)."""
        return msgspec.structs.replace(self, shape=(-1,)) if self.shape == (-1, 1) else self


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs and outputs of a version. `ignored` inputs may be sent and are dropped (a left-in label column)."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    ignored: tuple[str, ...] = ()

    def normalised(self) -> Self:
        """Return the signature with every spec in presented form."""
        return msgspec.structs.replace(
            self,
            inputs=tuple(spec.normalised() for spec in self.inputs),
            outputs=tuple(spec.normalised() for spec in self.outputs),
        )

    def input(self, name: str) -> TensorSpec | None:
        """Return the input called `name`."""
        return _named(self.inputs, name)

    def output(self, name: str) -> TensorSpec | None:
        """Return the output called `name`."""
        return _named(self.outputs, name)


_Pairs: TypeAlias = Sequence[tuple[TensorSpec, TensorSpec | None]]
_FAULTS_SHOWN: Final = 20
# What YAML reads as text without quotes.
_PLAIN: Final = re.compile(r"(?!(?i:null|true|false|yes|no|on|off)\Z)[A-Za-z_][\w.-]*", re.ASCII)


def check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return a request's shape as a tuple. Raises InvalidInput for a negative axis, an absurd rank or length."""
    if len(shape) > MAX_RANK:
        raise InvalidInput(f"tensor '{name}': rank {len(shape)} is over the limit of {MAX_RANK}")
    size = 1
    for axis, length in enumerate(shape):
        if length < 0:
            raise InvalidInput(f"tensor '{name}': axis {axis} of shape {list(shape)} is negative")
        size *= length or 1  # an axis of length 0 must not hide another that no array can have
    if size > MAX_ELEMENTS:
        raise InvalidInput(f"tensor '{name}': shape {list(shape)} is over the limit of {MAX_ELEMENTS} elements")
    return tuple(shape)


def unknown_datatype(name: str, datatype: str) -> InvalidInput:
    """Return the refusal of a datatype that the protocol does not have."""
    known = ", ".join(Datatype)
    return InvalidInput(f"tensor '{name}': datatype '{datatype[:40]}' is unknown; text is BYTES; known are {known}")


def fit(spec: TensorSpec, tensor: Tensor) -> Tensor:
    """Return `tensor` under the spec's rank. Raises InvalidInput naming the datatype, rank or axis at fault.

    `[n, 1]` fits `[-1]` and the other way round: both are one shape (DESIGN 5).
    """
    if tensor.datatype is not spec.datatype:
        raise InvalidInput(f"tensor '{spec.name}': datatype must be {spec.datatype}, got {tensor.datatype}")
    shape = tensor.shape
    if shape == spec.shape or (spec.shape[:1] == (-1,) and shape[1:] == spec.shape[1:] and shape):
        return tensor
    if len(shape) != len(spec.shape):
        if len(spec.shape) == 1 and len(shape) == 2 and shape[1] == 1:
            return fit(spec, tensor.reshaped(shape[:1]))
        if len(shape) == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
            return fit(spec, tensor.reshaped((shape[0], 1)))
        raise InvalidInput(
            f"tensor '{spec.name}': rank must be {len(spec.shape)} as in {list(spec.shape)}, got shape {list(shape)}"
        )
    for axis, wanted in enumerate(spec.shape):
        if wanted not in (-1, shape[axis]):
            raise InvalidInput(
                f"tensor '{spec.name}': axis {axis} must be {wanted}, got {shape[axis]} in shape {list(shape)}"
            )
    return tensor


def check_inputs(signature: Signature, tensors: TensorMap, droppable: Container[str] = ()) -> dict[str, Tensor]:
    """Return the tensors that `signature` takes, each in its declared rank.

    Raises InvalidInput for an unknown, missing or ill-fitting tensor, missing elements where none are allowed,
    and inputs that disagree on the number of rows. Names in `signature.ignored` or `droppable` are dropped.
    """
    checked: dict[str, Tensor] = {}
    rows: int | None = None
    rows_of = ""
    for spec in signature.inputs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise _missing(spec.name, signature, tensors, droppable)
        fitted = fit(spec, tensor)
        if spec.datatype is Datatype.BYTES and not spec.nullable:
            _refuse_missing(spec.name, fitted)
        if spec.shape and spec.shape[0] == -1:
            if rows is None:
                rows, rows_of = fitted.shape[0], spec.name
            elif fitted.shape[0] != rows:
                raise InvalidInput(
                    f"tensor '{spec.name}': axis 0 has {fitted.shape[0]} rows, tensor '{rows_of}' has {rows}"
                )
        checked[spec.name] = fitted
    if len(checked) != len(tensors):
        _refuse_unknown(signature, tensors, droppable)
    return checked


class InputCheck:
    """Checks a request's tensors as `check_inputs` does, by what was looked up beforehand."""

    __slots__ = ("_droppable", "_plain", "_signature")

    def __init__(self, signature: Signature, droppable: Container[str] = ()) -> None:
        self._signature = signature
        self._droppable = droppable
        plain = [
            (spec.name, spec.datatype, spec.shape[1:], spec.datatype is Datatype.BYTES and not spec.nullable)
            for spec in signature.inputs
            if _is_plain(spec)
        ]
        self._plain = plain if len(plain) == len(signature.inputs) else []

    def check(self, sent: TensorMap) -> tuple[TensorMap, int | None]:
        """Return the tensors to use, and how many rows they have (`rows_of`). Raises what `check_inputs` does."""
        rows = -1
        for name, datatype, tail, is_whole in self._plain:
            tensor = sent.get(name)
            if tensor is None or tensor.datatype is not datatype:
                break
            shape = tensor.array.shape
            if shape[1:] != tail or not shape or rows not in (-1, shape[0]) or (is_whole and _lacks_some(tensor)):
                break
            rows = shape[0]
        else:
            if len(sent) == len(self._plain) and rows >= 0:
                return sent, rows
        checked = check_inputs(self._signature, sent, self._droppable)
        return checked, rows_of(self._signature, checked)


class OutputCheck:
    """Checks a model's answers against its signature, by what was looked up beforehand."""

    __slots__ = ("_specs",)

    def __init__(self, signature: Signature) -> None:
        self._specs = {
            spec.name: (spec, spec.datatype, spec.shape[1:] if _is_plain(spec) else None) for spec in signature.outputs
        }

    def check(self, tensors: TensorMap, wanted: Iterable[str], rows: int | None) -> dict[str, Tensor]:
        """Return the wanted outputs in presented rank. Raises ModelFault where the model breaks its own signature."""
        checked: dict[str, Tensor] = {}
        for name in wanted:
            tensor = tensors.get(name)
            if tensor is None:
                raise ModelFault(f"tensor '{name}': the model did not answer it")
            spec, datatype, tail = self._specs[name]
            shape = tensor.array.shape
            if tensor.datatype is not datatype or shape[1:] != tail or not shape:
                tensor = _fit_answer(spec, tensor)
                shape = tensor.array.shape
            if rows is not None and spec.shape[:1] == (-1,) and shape[0] != rows:
                raise ModelFault(f"tensor '{name}': {shape[0]} rows answered for {rows} asked")
            checked[name] = tensor
        return checked


def rows_of(signature: Signature, tensors: TensorMap) -> int | None:
    """Return the number of rows of checked inputs; None where no input has a free axis 0."""
    for spec in signature.inputs:
        if spec.shape and spec.shape[0] == -1:
            return tensors[spec.name].shape[0]
    return None


def _is_plain(spec: TensorSpec) -> bool:
    """Tell whether a tensor has rows and is fixed in all its other axes."""
    return spec.shape[:1] == (-1,) and -1 not in spec.shape[1:]


def _lacks_some(tensor: Tensor) -> bool:
    return None in tensor.array.reshape(-1).tolist()


def _fit_answer(spec: TensorSpec, tensor: Tensor) -> Tensor:
    try:
        return fit(spec, tensor)
    except InvalidInput as error:
        raise ModelFault(f"the model's answer breaks its signature: {error.message}") from error


def names(specs: Iterable[TensorSpec]) -> str:
    """Return the specs' names as text for a message."""
    return ", ".join(f"'{spec.name}'" for spec in specs) or "none"


def incompatibility(route: Mapping[str, TensorSpec], version: Signature, outputs: Sequence[TensorSpec]) -> str | None:
    """Say everything for which a version cannot stand behind a route, with the casts that would help, or None.

    Its inputs must be a subset of the route's, with equal datatype and shape; its outputs must equal the route's
    (DESIGN 5).
    """
    mine = {spec.name: spec for spec in version.outputs}
    wanted = {spec.name: spec for spec in outputs}
    taken = [(spec, route.get(spec.name)) for spec in version.inputs]
    answered = [(mine[name], spec) for name, spec in wanted.items() if name in mine]
    faults = [_mismatch("input", *pair) for pair in taken]
    faults += [f"output '{name}' is missing" for name in wanted if name not in mine]
    faults += [_mismatch("output", *pair) for pair in answered]
    faults += [_mismatch("output", spec, None) for name, spec in mine.items() if name not in wanted]
    told = [fault for fault in faults if fault]
    if not told:
        return None
    more = [f"and {len(told) - _FAULTS_SHOWN} more"] if len(told) > _FAULTS_SHOWN else []
    return "; ".join([*told[:_FAULTS_SHOWN], *more, *_casts(taken, answered)])


def _mismatch(kind: str, mine: TensorSpec, offered: TensorSpec | None) -> str:
    """Say how a version's tensor differs from the route's; empty when it does not."""
    if offered is None:
        return f"{kind} '{mine.name}' is not among the route's {kind}s"
    if (offered.datatype, offered.shape) == (mine.datatype, mine.shape):
        return ""
    return (
        f"{kind} '{mine.name}' is {mine.datatype} {list(mine.shape)}, "
        f"the route's is {offered.datatype} {list(offered.shape)}"
    )


def _casts(taken: _Pairs, answered: _Pairs) -> list[str]:
    """Return the line of `model.yaml` for those that differ in nothing but a datatype that a cast can give."""
    halves: list[str] = []
    for half, pairs in (("inputs", taken), ("outputs", answered)):
        casts = [
            f"{_yaml_name(mine.name)}: {offered.datatype}"
            for mine, offered in pairs
            if offered is not None
            and offered.datatype is not mine.datatype
            and offered.shape == mine.shape
            and Datatype.BYTES not in (offered.datatype, mine.datatype)
        ]
        if casts:
            halves.append(f"{half}: {{{', '.join(casts)}}}")
    return [f"add to its model.yaml `cast: {{{', '.join(halves)}}}`"] if halves else []


def _yaml_name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def _named(specs: Iterable[TensorSpec], name: str) -> TensorSpec | None:
    for spec in specs:  # a plain loop: this is on every request's path
        if spec.name == name:
            return spec
    return None


def _refuse_missing(name: str, tensor: Tensor) -> None:
    for index, element in enumerate(tensor.array.reshape(-1)):
        if element is None:
            raise InvalidInput(f"tensor '{name}': element {index} is null; this model takes no missing strings")


def _missing(name: str, signature: Signature, tensors: TensorMap, droppable: Container[str]) -> InvalidInput:
    """Return the refusal of absent inputs; one that nobody knows beside it is likely the same by a wrong name."""
    stranger = _unknown(signature, tensors, droppable)
    beside = f", and tensor '{stranger}' is unknown" if stranger is not None else ""
    return InvalidInput(f"tensor '{name}': missing{beside}; inputs are {names(signature.inputs)}")


def _refuse_unknown(signature: Signature, tensors: TensorMap, droppable: Container[str]) -> None:
    name = _unknown(signature, tensors, droppable)
    if name is not None:
        raise InvalidInput(f"tensor '{name}': unknown; inputs are {names(signature.inputs)}")


def _unknown(signature: Signature, tensors: TensorMap, droppable: Container[str]) -> str | None:
    known = {spec.name for spec in signature.inputs}
    for name in tensors:
        if name not in known and name not in signature.ignored and name not in droppable:
            return name
    return None
