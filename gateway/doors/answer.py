"""Writes answers of the Open Inference Protocol v2 over HTTP: JSON, with binary tensors behind it where asked."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.doors.classification import classify
from gateway.doors.envelope import HEADER_FALLBACK, HEADER_GENERATION, HEADER_REQUEST_ID, HEADER_VERSION
from turnout.core import json_tensor
from turnout.core.request import Parameter, Prediction
from turnout.core.tensor import Buffer, Datatype, Tensor, TensorMap

_ENCODER: Final = msgspec.json.Encoder()


class WantedOutput(msgspec.Struct, frozen=True):
    """How one output is to be written; `classes` asks for so many `value:index` strings a row instead of values."""

    binary: bool = False
    nonfinite_null: bool = False
    classes: int | None = None


class AnswerPlan:
    """What a request said about its answer: outputs by name (none named: all), the default form, our own remarks."""

    __slots__ = ("annotated", "default", "wanted")

    def __init__(self, wanted: Mapping[str, WantedOutput], *, binary: bool, annotated: bool) -> None:
        self.wanted = wanted
        self.default = _BINARY if binary else _JSON
        self.annotated = annotated

    def is_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""
        for name, tensor in outputs.items():
            if tensor.array.size > LONG_ELEMENTS and not self._is_raw(name, tensor):
                return True
        return False

    def _is_raw(self, name: str, tensor: Tensor) -> bool:
        return self.wanted.get(name, self.default).binary and tensor.datatype is not Datatype.BYTES


# So many elements take about a millisecond to write one by one.
LONG_ELEMENTS: Final = 16 * 1024


class Written(msgspec.Struct, frozen=True):
    """An answer's bytes; `json_bytes` is the length of its JSON where raw tensors follow it, else None."""

    body: bytes
    json_bytes: int | None = None


class _Output(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Parameter] | None = None
    data: msgspec.Raw | None = None


class _Answer(msgspec.Struct, omit_defaults=True, kw_only=True):
    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] | None = None
    outputs: list[_Output]


_JSON: Final = WantedOutput()
_BINARY: Final = WantedOutput(binary=True)


def write(prediction: Prediction, plan: AnswerPlan, *, name: str, id: str, request_id: str) -> Written:  # noqa: A002
    """Return the answer under the name that the caller used.

    Raises ModelFault for a NaN where JSON was asked for, InvalidInput for what JSON cannot carry.
    """
    raws: list[Buffer] = []
    wanted, default = plan.wanted, plan.default
    outputs = [
        _output(output, tensor, wanted.get(output, default), raws) for output, tensor in prediction.outputs.items()
    ]
    version = prediction.version
    text = _ENCODER.encode(
        _Answer(
            model_name=name,
            model_version="" if version is None else str(version.number),
            id=id,
            parameters=remarks(prediction, request_id) if plan.annotated else None,
            outputs=outputs,
        )
    )
    if not raws:
        return Written(text)
    return Written(b"".join((text, *raws)), len(text))


def remarks(prediction: Prediction, request_id: str) -> dict[str, Parameter]:
    """Return what the answer's headers say, as parameters of its body."""
    found: dict[str, Parameter] = {HEADER_REQUEST_ID: request_id, HEADER_GENERATION: prediction.generation}
    if prediction.version is not None:
        found[HEADER_VERSION] = str(prediction.version)
    if prediction.fallback is not None:
        found[HEADER_FALLBACK] = prediction.fallback
    return found


def _output(name: str, tensor: Tensor, wanted: WantedOutput, raws: list[Buffer]) -> _Output:
    if wanted.classes is not None:
        tensor = classify(name, tensor, wanted.classes)
    if wanted.binary:
        raw = tensor.raw()
        raws.append(raw)
        return _Output(name, tensor.datatype, tensor.shape, {"binary_data_size": len(raw)})
    data = json_tensor.encode(tensor, name=name, nonfinite_null=wanted.nonfinite_null)
    return _Output(name, tensor.datatype, tensor.shape, None, msgspec.Raw(data))
