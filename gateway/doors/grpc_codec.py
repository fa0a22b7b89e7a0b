"""ModelInferRequest and ModelInferResponse to and from what the router takes and gives.

Translates and checks form; which tensors a model takes is decided behind the door. Raw contents stay views over the
received bytes. An answer has its request's form: raw contents for raw, typed for typed, and raw for all where one
output has no typed form. Imports no grpc.
"""

import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from gateway.doors import grpc_wire
from gateway.doors.answer import LONG_ELEMENTS
from gateway.doors.classification import PARAMETER as CLASSIFICATION
from gateway.doors.classification import class_count, classify
from gateway.doors.envelope import (
    HEADER_FALLBACK,
    HEADER_GENERATION,
    HEADER_REQUEST_ID,
    HEADER_VERSION,
    MAX_INPUTS,
    SHARED_MEMORY,
)
from gateway.limits import KIB
from turnout.core.errors import InvalidInput, TooLarge
from turnout.core.ids import VersionRef
from turnout.core.json_tensor import out_of_range, wrong_count
from turnout.core.request import Parameter, Prediction, PredictRequest
from turnout.core.signature import check_shape, unknown_datatype
from turnout.core.tensor import Array, Buffer, Datatype, Tensor
from turnout.core.wire import inference_pb2 as pb

Parsed = TypeVar("Parsed", bound=Message)

BIG_BYTES: Final = 64 * KIB
_STEP: Final = 64 * 1024  # elements
FINAL_RESPONSE: Final = "triton_final_response"

_RAW_INPUT: Final = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUT: Final = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_ID: Final = pb.ModelInferResponse.ID_FIELD_NUMBER
_FINAL: Final = pb.ModelInferResponse(
    parameters={FINAL_RESPONSE: pb.InferParameter(bool_param=True)}
).SerializeToString()
_KEPT: Final = 4096
_DATATYPES: Final[Mapping[str, Datatype]] = {str(datatype): datatype for datatype in Datatype}

# Which list of InferTensorContents holds a datatype's elements, and what that list itself can hold.
_LISTS: Final[Mapping[Datatype, tuple[str, np.dtype[Any]]]] = {
    Datatype.BOOL: ("bool_contents", np.dtype(np.bool_)),
    Datatype.INT8: ("int_contents", np.dtype(np.int32)),
    Datatype.INT16: ("int_contents", np.dtype(np.int32)),
    Datatype.INT32: ("int_contents", np.dtype(np.int32)),
    Datatype.INT64: ("int64_contents", np.dtype(np.int64)),
    Datatype.UINT8: ("uint_contents", np.dtype(np.uint32)),
    Datatype.UINT16: ("uint_contents", np.dtype(np.uint32)),
    Datatype.UINT32: ("uint_contents", np.dtype(np.uint32)),
    Datatype.UINT64: ("uint64_contents", np.dtype(np.uint64)),
    Datatype.FP32: ("fp32_contents", np.dtype(np.float32)),
    Datatype.FP64: ("fp64_contents", np.dtype(np.float64)),
    Datatype.BYTES: ("bytes_contents", np.dtype(object)),
}


class InferMessage:
    """A received ModelInferRequest: readable as protobuf, not yet looked into."""

    __slots__ = ("_raws", "_wire", "big", "id", "route", "version")

    def __init__(self, message: bytes) -> None:
        self.big = len(message) > BIG_BYTES
        envelope, raws = grpc_wire.split(message, _RAW_INPUT) if self.big else (message, [])
        self._wire = parse(pb.ModelInferRequest, envelope)
        self._raws: Sequence[Buffer] = raws or self._wire.raw_input_contents
        self.route = self._wire.model_name
        self.version = self._wire.model_version
        self.id = self._wire.id

    @property
    def many_elements(self) -> bool:
        """Whether decoding walks over more elements than the loop should wait for."""
        return self.big and not (self._raws and all(sent.datatype != Datatype.BYTES for sent in self._wire.inputs))

    def decode(self) -> "InferRequest":
        """Return the decoded request. Raises InvalidInput naming the tensor, output or parameter at fault."""
        wire = self._wire
        if len(wire.inputs) > MAX_INPUTS:
            raise InvalidInput(f"request body: {len(wire.inputs)} inputs are over the limit of {MAX_INPUTS}")
        return InferRequest(
            route=self.route,
            id=self.id,
            inputs=_inputs(wire, self._raws),
            classes=_outputs(wire),
            parameters=_parameters(wire.parameters) if wire.parameters else {},
            raw=len(self._raws) > 0,
        )


class InferRequest:
    """One decoded request: what goes to the router, and how its answer is to be written.

    `outputs` are the names asked for; `raw` tells the form of the answer. Its door sets `limit_bytes` for the answer,
    and whether that `is_final`: the last one of its request in a stream.
    """

    __slots__ = ("_classes", "id", "inputs", "is_final", "limit_bytes", "parameters", "raw", "route")

    def __init__(
        self,
        *,
        route: str,
        id: str,  # noqa: A002  the protocol's own word
        inputs: Mapping[str, Tensor],
        classes: Mapping[str, int | None],
        parameters: Mapping[str, Parameter],
        raw: bool,
    ) -> None:
        self.route = route
        self.id = id
        self.inputs = inputs
        self._classes = classes
        self.parameters = parameters
        self.raw = raw
        self.limit_bytes = sys.maxsize
        self.is_final = False

    @property
    def outputs(self) -> Sequence[str]:
        """The outputs asked for, none for all."""
        return tuple(self._classes)

    def write(self, prediction: Prediction, request: PredictRequest) -> bytes:
        """Return the serialised ModelInferResponse.

        Raises TooLarge for an answer over the limit, ModelFault and InvalidInput as classification does.
        """
        tensors = self._classified(prediction.outputs) if self._classes else prediction.outputs
        parts: list[Buffer] = [_head(self.route, prediction.version, prediction.generation, prediction.fallback)]
        if self.id:
            parts += grpc_wire.delimited(_ID, self.id.encode())
        parts += (_before_request_id(len(request.request_id)), request.request_id.encode())
        if self.is_final:
            parts.append(_FINAL)
        if self.raw or not all(map(_has_typed_form, tensors.values())):
            for name, tensor in tensors.items():
                parts.append(_described(name, tensor.datatype, tensor.shape))
                parts += grpc_wire.delimited(_RAW_OUTPUT, tensor.raw())
        else:
            parts.append(_typed_outputs(tensors))
        written = b"".join(parts)
        if len(written) > self.limit_bytes:
            raise TooLarge(f"the answer of {len(written)} bytes is over the limit of {self.limit_bytes} bytes")
        return written

    def writes_long(self, outputs: Mapping[str, Tensor]) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""
        for tensor in outputs.values():
            if tensor.array.size > LONG_ELEMENTS and (not self.raw or tensor.datatype is Datatype.BYTES):
                return True
        return False

    def _classified(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            count = self._classes.get(name)
            found[name] = tensor if count is None else classify(name, tensor, count)
        return found


def error_response(id: str, request_id: str, request: PredictRequest | None) -> bytes:  # noqa: A002
    """Return what stands beside a stream's error message: which request it was, and what had been picked for it."""
    answer = pb.ModelInferResponse(id=id)
    answer.parameters[HEADER_REQUEST_ID].string_param = request_id
    answer.parameters[FINAL_RESPONSE].bool_param = True
    if request is not None:
        answer.parameters[HEADER_GENERATION].int64_param = request.generation
        if request.picked is not None:
            answer.parameters[HEADER_VERSION].string_param = str(request.picked)
    return answer.SerializeToString()


def parse(kind: type[Parsed], message: bytes) -> Parsed:
    """Return `message` read as protobuf. Raises InvalidInput when it is none."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidInput(f"request message: is no {kind.DESCRIPTOR.name}") from error


# Serialised messages of one kind behind each other are one message: an answer is put together from parts, of which
# those that only a few routes, versions and shapes make different are kept.


@functools.lru_cache(maxsize=_KEPT)
def _head(route: str, version: VersionRef | None, generation: int, fallback: str | None) -> bytes:
    """Return what every answer of a version to a route has: the name asked for, and who answered as in the metadata."""
    answer = pb.ModelInferResponse(model_name=route)
    parameters = answer.parameters
    parameters[HEADER_GENERATION].int64_param = generation
    if version is not None:
        answer.model_version = str(version.number)
        parameters[HEADER_VERSION].string_param = str(version)
    if fallback is not None:
        parameters[HEADER_FALLBACK].string_param = fallback
    return answer.SerializeToString()


@functools.lru_cache(maxsize=_KEPT)
def _described(name: str, datatype: Datatype, shape: tuple[int, ...]) -> bytes:
    """Return an output without its elements."""
    answer = pb.ModelInferResponse()
    answer.outputs.add(name=name, datatype=datatype, shape=shape)
    return answer.SerializeToString()


@functools.lru_cache(maxsize=_KEPT)
def _before_request_id(length: int) -> bytes:
    """Return the request id's parameter up to the id itself, which is all that differs in every answer."""
    answer = pb.ModelInferResponse()
    answer.parameters[HEADER_REQUEST_ID].string_param = "-" * length
    return answer.SerializeToString()[:-length]


def _typed_outputs(tensors: Mapping[str, Tensor]) -> bytes:
    answer = pb.ModelInferResponse()
    for name, tensor in tensors.items():
        output = answer.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        listed = getattr(output.contents, _LISTS[tensor.datatype][0])
        listed.extend(tensor.array.reshape(-1).tolist())
    return answer.SerializeToString()


def _inputs(wire: pb.ModelInferRequest, raws: Sequence[Buffer]) -> dict[str, Tensor]:
    if raws and len(raws) != len(wire.inputs):
        raise InvalidInput(
            f"request message: raw_input_contents has {len(raws)} entries for {len(wire.inputs)} inputs; "
            "send one for each input, or none"
        )
    tensors: dict[str, Tensor] = {}
    for index, sent in enumerate(wire.inputs):
        name = sent.name
        if name in tensors:
            raise InvalidInput(f"tensor '{name}': sent twice")
        datatype = _DATATYPES.get(sent.datatype)
        if datatype is None:
            raise unknown_datatype(name, sent.datatype)
        shape = check_shape(name, tuple(sent.shape))
        if sent.parameters and SHARED_MEMORY in _parameters(sent.parameters, f"tensor '{name}': "):
            raise InvalidInput(f"tensor '{name}': shared memory is not offered")
        if not raws:
            tensors[name] = _typed(name, datatype, shape, sent.contents)
        elif sent.HasField("contents"):
            raise InvalidInput(f"tensor '{name}': has contents beside raw_input_contents")
        else:
            tensors[name] = Tensor.from_raw(name, datatype, shape, raws[index]).aligned()
    return tensors


def _typed(name: str, datatype: Datatype, shape: tuple[int, ...], contents: pb.InferTensorContents) -> Tensor:
    listed = _LISTS.get(datatype)
    if listed is None:
        raise InvalidInput(f"tensor '{name}': {datatype} has no typed contents; use raw_input_contents")
    field, held = listed
    for other, _ in contents.ListFields():
        if other.name != field:
            raise InvalidInput(f"tensor '{name}': {datatype} goes into {field}, not into {other.name}")
    elements = getattr(contents, field)
    if len(elements) != np.prod(shape, dtype=object):
        raise wrong_count(name, shape, len(elements))
    array = _read_list(elements, held)
    if datatype.is_integer and datatype.dtype != held:
        narrow = array.astype(datatype.dtype)
        wrong = narrow != array
        if wrong.any():
            raise out_of_range(name, int(np.flatnonzero(wrong)[0]), datatype)
        array = narrow
    return Tensor(datatype, array.reshape(shape))


def _read_list(elements: Sequence[Any], held: np.dtype[Any]) -> Array:
    """Return the list as an array, in steps between which other threads get their turn."""
    count = len(elements)
    if count <= _STEP:
        return np.fromiter(elements, held, count)
    array = np.empty(count, held)
    iterator = iter(elements)
    for at in range(0, count, _STEP):
        part = array[at : at + _STEP]
        part[:] = np.fromiter(itertools.islice(iterator, len(part)), held, len(part))
    return array


def _has_typed_form(tensor: Tensor) -> bool:
    """Tell whether typed contents can carry the tensor: FP16, BF16 and missing strings they cannot."""
    if tensor.datatype is Datatype.BYTES:
        return all(element is not None for element in tensor.array.reshape(-1))
    return tensor.datatype in _LISTS


def _outputs(wire: pb.ModelInferRequest) -> dict[str, int | None]:
    """Return the outputs asked for, each with the number of classes asked of it."""
    wanted: dict[str, int | None] = {}
    for asked in wire.outputs:
        name = asked.name
        if name in wanted:
            raise InvalidInput(f"output '{name}': asked for twice")
        parameters = _parameters(asked.parameters, f"output '{name}': ") if asked.parameters else {}
        if SHARED_MEMORY in parameters:
            raise InvalidInput(f"output '{name}': shared memory is not offered")
        count = parameters.get(CLASSIFICATION)
        wanted[name] = None if count is None else class_count(name, count)
    return wanted


def _parameters(wire: Mapping[str, pb.InferParameter], owner: str = "") -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, value in wire.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f"{owner}parameter {name}: must be a string, a number, true or false")
        found[name] = getattr(value, choice)
    return found
