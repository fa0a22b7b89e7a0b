"""Writes answers of the Open Inference Protocol v2 over HTTP: JSON, with binary tensors behind it where asked."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from gateway.doors.classification import classify
from gateway.doors.envelope import HEADER_FALLBACK, HEADER_GENERATION, HEADER_REQUEST_ID, HEADER_VERSION
from turnout.core import json_tensor
from turnout.core.ids import VersionRef
from turnout.core.request import Parameter, Prediction, PredictRequest
from turnout.core.tensor import Buffer, Datatype, Tensor, TensorMap

# So many elements take about a millisecond to write one by one.
LONG_ELEMENTS: Final = 16 * 1024
# Beginnings of answers and of tensors that are kept: shapes vary with the number of rows.
_KEPT: Final = 4096

_ENCODER: Final = msgspec.json.Encoder()


class WantedOutput(msgspec.Struct, frozen=True):
    """How one output is to be written; `classes` asks for so many `value:index` strings a row instead of values."""

    binary: bool = False
    nonfinite_null: bool = False
    classes: int | None = None


class Written(msgspec.Struct, frozen=True, gc=False):
    """An answer's JSON, and the raw tensors behind it: views, since they may be large."""

    body: bytes
    raws: tuple[Buffer, ...] = ()


class PlainAnswer:
    """Writes what most requests ask for: all outputs, as JSON, without remarks."""

    def write(self, prediction: Prediction, request: PredictRequest) -> Written:
        """Return the answer under the name that the caller used.

        Raises ModelFault for a NaN or infinity, InvalidInput for what JSON cannot carry.
        """
        parts = [_answer_opening(request.route, prediction.version)]
        if request.id:
            parts.append(b'"id":%b,' % _ENCODER.encode(request.id))
        separator = b'"outputs":['
        for name, tensor in prediction.outputs.items():
            array = tensor.array
            data = json_tensor.encode(tensor, name=name, nonfinite_null=False)
            parts += (separator, _tensor_opening(name, tensor.datatype, array.shape), data, b"}")
            separator = b","
        parts.append(b"]}")
        return Written(b"".join(parts))

    def writes_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""
        for tensor in outputs.values():  # noqa: SIM110  a plain loop costs half
            if tensor.array.size > LONG_ELEMENTS:
                return True
        return False


class PlannedAnswer:
    """Writes what a request asked for: outputs by name (none named: all), the default form, our own remarks."""

    def __init__(self, wanted: Mapping[str, WantedOutput], *, binary: bool, annotated: bool) -> None:
        self.wanted = wanted
        self._default = WantedOutput(binary=binary)
        self._annotated = annotated

    def write(self, prediction: Prediction, request: PredictRequest) -> Written:
        """Return the answer as `PlainAnswer` does; a NaN or infinity is written as null where that was asked for."""
        parts = [_answer_opening(request.route, prediction.version)]
        if request.id:
            parts.append(b'"id":%b,' % _ENCODER.encode(request.id))
        if self._annotated:
            parts.append(b'"parameters":%b,' % _ENCODER.encode(remarks(prediction, request.request_id)))
        raws: list[Buffer] = []
        outputs = [
            _output(name, tensor, self.wanted.get(name, self._default), raws)
            for name, tensor in prediction.outputs.items()
        ]
        parts += (b'"outputs":[', b",".join(outputs), b"]}")
        text = b"".join(parts)
        return Written(text, tuple(raws))

    def writes_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""
        for name, tensor in outputs.items():
            if tensor.array.size > LONG_ELEMENTS and not self._is_raw(name, tensor):
                return True
        return False

    def _is_raw(self, name: str, tensor: Tensor) -> bool:
        return self.wanted.get(name, self._default).binary and tensor.datatype is not Datatype.BYTES


def remarks(prediction: Prediction, request_id: str) -> dict[str, Parameter]:
    """Return what the answer's headers say, as parameters of its body."""
    found: dict[str, Parameter] = {HEADER_REQUEST_ID: request_id, HEADER_GENERATION: prediction.generation}
    if prediction.version is not None:
        found[HEADER_VERSION] = str(prediction.version)
    if prediction.fallback is not None:
        found[HEADER_FALLBACK] = prediction.fallback
    return found


def _output(name: str, tensor: Tensor, wanted: WantedOutput, raws: list[Buffer]) -> bytes:
    if wanted.classes is not None:
        tensor = classify(name, tensor, wanted.classes)
    if not wanted.binary:
        data = json_tensor.encode(tensor, name=name, nonfinite_null=wanted.nonfinite_null)
        return b"%b%b}" % (_tensor_opening(name, tensor.datatype, tensor.shape), data)
    raw = tensor.raw()
    raws.append(raw)
    described = {
        "name": name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    return _ENCODER.encode(described)


@lru_cache(_KEPT)
def _answer_opening(route: str, version: VersionRef | None) -> bytes:
    """Return an answer up to what is said of this very request."""
    named = {"model_name": route} if version is None else {"model_name": route, "model_version": str(version.number)}
    return _ENCODER.encode(named)[:-1] + b","


@lru_cache(_KEPT)
def _tensor_opening(name: str, datatype: Datatype, shape: tuple[int, ...]) -> bytes:
    """Return a tensor's JSON up to its data."""
    return _ENCODER.encode({"name": name, "datatype": datatype, "shape": shape})[:-1] + b',"data":'
