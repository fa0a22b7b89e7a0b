"""Bodies of the Open Inference Protocol v2 over HTTP: JSON, binary tensors, both mixed, or one raw tensor.

Translates and checks form; which tensors a model takes is decided behind the door. Binary tensors stay views over
the received bytes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Union

import msgspec
import numpy as np

from gateway.doors import json_body
from gateway.doors.answer import PlainAnswer, PlannedAnswer, WantedOutput
from gateway.doors.classification import PARAMETER as CLASSIFICATION
from gateway.doors.classification import class_count
from gateway.doors.envelope import MAX_INPUTS, SHARED_MEMORY
from gateway.doors.http_headers import JSON_LENGTH, Headers
from gateway.limits import Limits
from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.request import AnswerWriter, Parameter
from turnout.core.signature import TensorSpec, check_shape, unknown_datatype
from turnout.core.tensor import DTYPES, MAX_RANK, Datatype, Tensor, TensorMap

BINARY_DATA: Final = "binary_data"
BINARY_DATA_OUTPUT: Final = "binary_data_output"
BINARY_DATA_SIZE: Final = "binary_data_size"
NONFINITE: Final = "nonfinite"
TURNOUT: Final = "turnout"

_DATATYPES: Final[Mapping[str, Datatype]] = {str(datatype): datatype for datatype in Datatype}
_HALF: Final = 2**63


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Parameter | None] | None = None


class _Body(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Parameter] | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


class _TypedInput(msgspec.Struct, tag_field="datatype", kw_only=True, forbid_unknown_fields=True):
    """An input whose elements are read together with the rest of the body; its datatype is the tag."""

    name: str
    shape: tuple[int, ...]
    parameters: dict[str, Parameter] | None = None


_TYPED: Final[Mapping[type[msgspec.Struct], Datatype]] = {
    msgspec.defstruct(
        f"_{datatype}Input",
        [("data", list[json_tensor.element_type(datatype)])],  # type: ignore[misc]  # a type made at run time
        bases=(_TypedInput,),
        tag=str(datatype),
    ): datatype
    for datatype in json_tensor.DATATYPES
}
_AnyInput: Any = Union[tuple(_TYPED)]  # noqa: UP007  from a list there is no other way


class _TypedBody(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_AnyInput]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Parameter] | None = None


_TYPED_BODY: Final = msgspec.json.Decoder(_TypedBody)
_PLAIN: Final = PlainAnswer()
# Beyond it elements are read piece by piece.
_TYPED_BYTES: Final = 64 * 1024


class InferRequest(msgspec.Struct, gc=False):
    """One decoded infer body: what goes to the router, and who writes its answer."""

    inputs: TensorMap
    writer: AnswerWriter
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Parameter] = {}
    id: str = ""


class InferForm:
    """The v2 infer body as the HTTP door takes it."""

    def __init__(self, limits: Limits) -> None:
        self._nesting = limits.nesting

    def typed_by_model(self, headers: Headers) -> bool:
        """Tell whether only the model says what the body's bytes mean."""
        return is_raw(headers)

    def read(self, body: bytes | bytearray | memoryview, headers: Headers, specs: Sequence[TensorSpec]) -> InferRequest:
        """Decode a body; `specs` are the model's inputs where it is typed by the model. Raises InvalidInput."""
        if is_raw(headers):
            return decode_raw(body, specs)
        return decode(body, headers, self._nesting)

    def read_json(self, body: bytes) -> InferRequest:
        """Decode a body that is JSON and nothing else. Raises InvalidInput by name."""
        return _typed(body) or _read(body, None, self._nesting)


def is_raw(headers: Headers) -> bool:
    """Tell whether the body is the bytes of one tensor and nothing else: only the model says what they mean."""
    return headers.raw.get(JSON_LENGTH) == b"0"


def decode(body: bytes | bytearray | memoryview, headers: Headers, nesting: int) -> InferRequest:
    """Read a JSON body, with binary tensors behind it where the header says so. Raises InvalidInput by name."""
    length = headers.raw.get(JSON_LENGTH)
    if length is None:
        return _read(bytes(body) if isinstance(body, memoryview) else body, None, nesting)
    size = _json_length(length, len(body))
    view = memoryview(body)
    return _read(bytes(view[:size]), view[size:], nesting)


def _read(text: bytes | bytearray, binary: memoryview | None, nesting: int) -> InferRequest:
    document = json_body.read(_BODY, text, nesting)
    inputs = _tensors(document.inputs, binary)
    if not document.outputs and not document.parameters:
        return InferRequest(inputs, _PLAIN, id=document.id or "")
    return _planned(inputs, document.outputs or (), document.parameters or {}, document.id or "")


def _typed(text: bytes) -> InferRequest | None:
    """Read a body in one go; None for one that has to be read in two steps, or whose fault those will name."""
    if len(text) > _TYPED_BYTES:
        return None
    try:
        document = _TYPED_BODY.decode(text)
        inputs: dict[str, Tensor] = {}
        for sent in document.inputs:
            shape, data = sent.shape, sent.data
            if len(data) != math.prod(shape) or not data or min(shape, default=1) < 0 or len(shape) > MAX_RANK:
                return None
            if sent.parameters or sent.name in inputs:
                return None
            datatype = _TYPED[type(sent)]
            array = json_tensor.texts_of(data) if datatype is Datatype.BYTES else np.array(data, DTYPES[datatype])
            inputs[sent.name] = Tensor(datatype, array.reshape(shape))
    except (ValueError, OverflowError, RecursionError):
        return None
    if not document.outputs and not document.parameters:
        return InferRequest(inputs, _PLAIN, id=document.id or "")
    return _planned(inputs, document.outputs or (), document.parameters or {}, document.id or "")


def _planned(
    inputs: TensorMap,
    outputs: Sequence[_Output],
    parameters: Mapping[str, Parameter],
    id: str,  # noqa: A002
) -> InferRequest:
    if parameters:
        check_parameters(parameters)
    plan = _plan(outputs, parameters)
    return InferRequest(inputs, plan, tuple(plan.wanted), parameters, id)


def decode_raw(body: bytes | bytearray | memoryview, specs: Sequence[TensorSpec]) -> InferRequest:
    """Read a body that is the bytes of the model's one input, treated as one row; all outputs come back binary.

    The shape is the declared one, one free axis filled from the size. A BYTES input is one element without a length.
    Raises InvalidInput when the model or the size does not allow it.
    """
    if len(specs) != 1:
        raise InvalidInput(f"request body: raw bytes stand for one input, this model has {len(specs)}")
    spec = specs[0]
    shape = [1 if axis == 0 and length == -1 else length for axis, length in enumerate(spec.shape)]
    if spec.datatype is Datatype.BYTES:
        if shape != [1]:
            raise InvalidInput(f"tensor '{spec.name}': raw BYTES stand for one element, the shape is {shape}")
        tensor = Tensor.from_raw(spec.name, spec.datatype, (1,), len(body).to_bytes(4, "little") + bytes(body))
    else:
        tensor = Tensor.from_raw(spec.name, spec.datatype, _raw_shape(spec, shape, len(body)), body).aligned()
    return InferRequest({spec.name: tensor}, PlannedAnswer({}, binary=True, annotated=False))


def check_parameters(parameters: Mapping[str, Parameter]) -> None:
    """Raise InvalidInput for a whole number that no parameter can carry, and for reserved flags that are no flags."""
    for name, value in parameters.items():
        if type(value) is int and not -_HALF <= value < 2 * _HALF:
            raise InvalidInput(f"parameter {name}: is beyond 64 bits")
    for name in (BINARY_DATA_OUTPUT, TURNOUT):
        if not isinstance(parameters.get(name, False), bool):
            raise InvalidInput(f"parameter {name}: must be true or false")


def _json_length(value: bytes, body_length: int) -> int:
    if not value.isdigit() or len(value) > 18:
        shown = value[:40].decode("latin-1")
        raise InvalidInput(f"header inference-header-content-length: must be a number of bytes, got '{shown}'")
    size = int(value)
    if size > body_length:
        raise InvalidInput(f"header inference-header-content-length: {size} is beyond the body of {body_length} bytes")
    return size


def _plan(outputs: Sequence[_Output], parameters: Mapping[str, Parameter]) -> PlannedAnswer:
    binary = parameters.get(BINARY_DATA_OUTPUT) is True
    wanted: dict[str, WantedOutput] = {}
    for output in outputs:
        if output.name in wanted:
            raise InvalidInput(f"output '{output.name}': asked for twice")
        wanted[output.name] = _wanted(output.name, output.parameters, binary=binary)
    return PlannedAnswer(wanted, binary=binary, annotated=parameters.get(TURNOUT) is True)


def _wanted(name: str, parameters: Mapping[str, Parameter | None] | None, *, binary: bool) -> WantedOutput:
    if not parameters:
        return WantedOutput(binary=binary)
    nulls = [key for key, value in parameters.items() if value is None and key != NONFINITE]
    if nulls:
        raise InvalidInput(f"output '{name}': parameter {nulls[0]}: must be a string, a number, true or false")
    if SHARED_MEMORY in parameters:
        raise InvalidInput(f"output '{name}': shared memory is not offered")
    own = parameters.get(BINARY_DATA, binary)
    if not isinstance(own, bool):
        raise InvalidInput(f"output '{name}': parameter {BINARY_DATA} must be true or false")
    if parameters.get(NONFINITE) not in (None, "null"):
        raise InvalidInput(f"output '{name}': parameter {NONFINITE} can only be null")
    count = parameters.get(CLASSIFICATION)
    return WantedOutput(
        binary=own,
        nonfinite_null=NONFINITE in parameters,
        classes=None if count is None else class_count(name, count),
    )


def _tensors(inputs: Sequence[_Input], binary: memoryview | None) -> dict[str, Tensor]:
    if len(inputs) > MAX_INPUTS:
        raise InvalidInput(f"request body: {len(inputs)} inputs are over the limit of {MAX_INPUTS}")
    tensors: dict[str, Tensor] = {}
    at = 0
    for sent in inputs:
        name = sent.name
        if name in tensors:
            raise InvalidInput(f"tensor '{name}': sent twice")
        datatype = _DATATYPES.get(sent.datatype)
        if datatype is None:
            raise unknown_datatype(name, sent.datatype)
        shape = check_shape(name, sent.shape)
        size = _binary_size(sent) if sent.parameters else None
        if size is None:
            if sent.data is msgspec.UNSET:
                raise InvalidInput(f"tensor '{name}': has neither data nor {BINARY_DATA_SIZE}")
            tensors[name] = json_tensor.decode(name, datatype, shape, sent.data)
            continue
        tensors[name] = _binary_tensor(sent, datatype, shape, binary, at, size)
        at += size
    if binary is not None and at != len(binary):
        raise InvalidInput(f"request body: {len(binary) - at} bytes are left over after the last binary tensor")
    return tensors


def _binary_size(sent: _Input) -> int | None:
    value = (sent.parameters or {}).get(BINARY_DATA_SIZE)
    if value is None:
        if SHARED_MEMORY in (sent.parameters or {}):
            raise InvalidInput(f"tensor '{sent.name}': shared memory is not offered")
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"tensor '{sent.name}': {BINARY_DATA_SIZE} must be a number of bytes")
    if sent.data is not msgspec.UNSET:
        raise InvalidInput(f"tensor '{sent.name}': has both data and {BINARY_DATA_SIZE}")
    return value


def _binary_tensor(
    sent: _Input, datatype: Datatype, shape: tuple[int, ...], binary: memoryview | None, at: int, size: int
) -> Tensor:
    if binary is None:
        raise InvalidInput(f"tensor '{sent.name}': binary data needs header inference-header-content-length")
    if at + size > len(binary):
        raise InvalidInput(
            f"tensor '{sent.name}': {BINARY_DATA_SIZE} is {size}, only {len(binary) - at} bytes are left"
        )
    return Tensor.from_raw(sent.name, datatype, shape, binary[at : at + size]).aligned()


def _raw_shape(spec: TensorSpec, shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the shape with its one free axis filled from the number of bytes."""
    free = [axis for axis, length in enumerate(shape) if length == -1]
    if len(spec.shape) == 1 and spec.shape[0] == -1:
        free = [0]
    if len(free) > 1:
        raise InvalidInput(f"tensor '{spec.name}': raw bytes leave axes {free} of shape {list(spec.shape)} open")
    if not free:
        return tuple(shape)
    fixed = spec.datatype.dtype.itemsize
    for axis, length in enumerate(shape):
        fixed *= 1 if axis == free[0] else length
    if not fixed or size % fixed:
        raise InvalidInput(
            f"tensor '{spec.name}': {size} raw bytes do not fill shape {list(spec.shape)} of {spec.datatype}"
        )
    return tuple(size // fixed if axis == free[0] else length for axis, length in enumerate(shape))
