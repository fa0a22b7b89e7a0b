"""TF Serving's REST form of prediction: `instances` in rows or `inputs` in columns, untyped JSON both ways.

Datatypes come from the model's description. One input or one output may go without its name. BYTES are strings, or
`{"b64": …}`; outputs whose name ends in `_bytes` are answered so. There is one signature, `serving_default`.
"""

import base64
import binascii
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from gateway.doors import json_body
from gateway.doors.answer import LONG_ELEMENTS, Written
from gateway.doors.http_headers import Headers
from gateway.doors.interface import Backend
from gateway.limits import Limits
from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.request import AnswerWriter, Parameter, Prediction, PredictRequest
from turnout.core.signature import TensorSpec, check_shape, names
from turnout.core.tensor import Datatype, Tensor, TensorMap

SIGNATURE: Final = "serving_default"
_BYTES_SUFFIX: Final = "_bytes"
_B64: Final = "b64"

_ENCODER: Final = msgspec.json.Encoder()
_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NAMED: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Body(msgspec.Struct):
    signature_name: str | None = None
    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_BODY: Final = msgspec.json.Decoder(_Body)


class _ColumnsAnswer:
    """Writes `outputs`, as `inputs` were sent."""

    def write(self, prediction: Prediction, request: PredictRequest) -> Written:  # noqa: ARG002  the form names none
        """Return the answer. Raises ModelFault or InvalidInput for what JSON cannot carry."""
        return Written(_ENCODER.encode({"outputs": _only(_columns_of(prediction))}))

    def writes_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""
        return any(tensor.array.size > LONG_ELEMENTS for tensor in outputs.values())


class _RowsAnswer(_ColumnsAnswer):
    """Writes `predictions`, as `instances` were sent."""

    def write(self, prediction: Prediction, request: PredictRequest) -> Written:  # noqa: ARG002  the form names none
        """Return the answer. Raises ModelFault or InvalidInput for what JSON cannot carry."""
        columns = _columns_of(prediction)
        lengths = {tensor.shape[:1] for tensor in prediction.outputs.values()}
        if len(lengths) > 1 or () in lengths:
            raise InvalidInput("the outputs of this model are no rows; send inputs instead of instances")
        if len(columns) == 1:
            return Written(_ENCODER.encode({"predictions": _only(columns)}))
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return Written(_ENCODER.encode({"predictions": rows}))


_COLUMNS: Final = _ColumnsAnswer()
_PREDICTIONS: Final = _RowsAnswer()


class PredictBody(msgspec.Struct, frozen=True):
    """One decoded body, and who writes its answer."""

    inputs: TensorMap
    writer: AnswerWriter
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Parameter] = {}
    id: str = ""


class PredictForm:
    """The body of `:predict` as the HTTP door takes it."""

    def __init__(self, limits: Limits) -> None:
        self._nesting = limits.nesting

    def typed_by_model(self, headers: Headers) -> bool:  # noqa: ARG002  always
        """Tell that only the model knows the datatypes."""
        return True

    def read(self, body: bytes | bytearray | memoryview, headers: Headers, specs: Sequence[TensorSpec]) -> PredictBody:  # noqa: ARG002
        """Decode a body into tensors of the model's datatypes. Raises InvalidInput naming the tensor."""
        document = json_body.read(_BODY, bytes(body), self._nesting)
        try:
            return self._read(document, specs)
        except UnicodeDecodeError as error:
            raise InvalidInput("request body: JSON must be UTF-8") from error

    def _read(self, document: _Body, specs: Sequence[TensorSpec]) -> PredictBody:
        if document.signature_name not in (None, "", SIGNATURE):
            raise InvalidInput(f"field signature_name: there is '{SIGNATURE}' only")
        if (document.instances is msgspec.UNSET) is (document.inputs is msgspec.UNSET):
            raise InvalidInput("request body: needs either instances or inputs")
        if document.instances is not msgspec.UNSET:
            return PredictBody(_tensors(_columns_of_rows(document.instances, specs), specs), _PREDICTIONS)
        assert document.inputs is not msgspec.UNSET
        return PredictBody(_tensors(_columns(document.inputs, specs), specs), _COLUMNS)


def status(backend: Backend, name: str, version: int | None) -> Mapping[str, object]:
    """Return the states of the loaded versions of a route or model. Raises NotFound."""
    entries = []
    for number in backend.describe(name, version).versions:
        state = "AVAILABLE" if backend.is_model_ready(name, int(number)) else "LOADING"
        entries.append({"version": number, "state": state, "status": {"error_code": "OK", "error_message": ""}})
    return {"model_version_status": entries}


def _columns_of(prediction: Prediction) -> dict[str, Any]:
    return {output: _values(output, tensor) for output, tensor in prediction.outputs.items()}


def _columns_of_rows(data: msgspec.Raw, specs: Sequence[TensorSpec]) -> dict[str, bytes]:
    """Return each input's rows as one JSON array."""
    rows = [bytes(row) for row in _list("instances", data)]
    if not rows or not _is_named(rows[0]):
        return {_only_input(specs): bytes(data)}
    cells: dict[str, list[bytes]] = {name: [] for name in _NAMED.decode(rows[0])}
    for index, row in enumerate(rows):
        named = _NAMED.decode(row) if row.startswith(b"{") else {}
        if named.keys() != cells.keys():
            raise InvalidInput(f"field instances: row {index} has other inputs than row 0")
        for name, cell in named.items():
            cells[name].append(bytes(cell))
    return {name: b"[" + b",".join(column) + b"]" for name, column in cells.items()}


def _columns(data: msgspec.Raw, specs: Sequence[TensorSpec]) -> dict[str, bytes]:
    text = bytes(data)
    if _is_named(text):
        return {name: bytes(column) for name, column in _NAMED.decode(text).items()}
    return {_only_input(specs): text}


def _list(field: str, data: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return _ROWS.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"field {field}: must be a list") from error


def _is_named(text: bytes) -> bool:
    """Tell whether a JSON value holds inputs by name; an object with `b64` alone is a value."""
    return text.startswith(b"{") and _NAMED.decode(text).keys() != {_B64}


def _only_input(specs: Sequence[TensorSpec]) -> str:
    if len(specs) != 1:
        raise InvalidInput(f"request body: this model has {len(specs)} inputs, send them by name: {names(specs)}")
    return specs[0].name


def _tensors(columns: Mapping[str, bytes], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    known = {spec.name: spec for spec in specs}
    tensors: dict[str, Tensor] = {}
    for name, text in columns.items():
        spec = known.get(name)
        if spec is None:
            raise InvalidInput(f"tensor '{name}': unknown; inputs are {names(specs)}")
        tensors[name] = _tensor(spec, text)
    return tensors


def _tensor(spec: TensorSpec, text: bytes) -> Tensor:
    shape = _shape(text)
    if 0 in shape:
        shape += tuple(max(length, 0) for length in spec.shape[len(shape) :])
    shape = check_shape(spec.name, shape)
    data = text if shape else b"[" + text + b"]"
    if spec.datatype is not Datatype.BYTES:
        return json_tensor.decode(spec.name, spec.datatype, shape, data)
    try:
        nested = _text_decoder(max(len(shape), 1)).decode(data)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"tensor '{spec.name}': an element {json_body.plain(str(error))}") from error
    flat = json_tensor.flatten(spec.name, nested, shape or (1,))
    elements = np.empty(len(flat), dtype=object)
    elements[:] = [_element(spec.name, index, value) for index, value in enumerate(flat)]
    return Tensor(Datatype.BYTES, elements.reshape(shape))


@functools.cache
def _text_decoder(depth: int) -> msgspec.json.Decoder[list[Any]]:
    """Return the decoder of BYTES elements nested `depth` deep; at most one for each allowed rank."""
    kind: Any = str | dict[str, str] | None
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _element(name: str, index: int, value: str | dict[str, str] | None) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if value.keys() != {_B64}:
        raise InvalidInput(f"tensor '{name}': element {index} must be a string or {{\"{_B64}\": …}}")
    try:
        return base64.b64decode(value[_B64], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"tensor '{name}': element {index} is not base64 ({error})") from error


def _shape(text: bytes) -> tuple[int, ...]:
    """Return the shape that the first elements of nested lists suggest; the tensor's reader checks the others."""
    shape: list[int] = []
    while text.startswith(b"["):
        rows = _ROWS.decode(text)
        shape.append(len(rows))
        text = bytes(rows[0]) if rows else b""
    return tuple(shape)


def _values(name: str, tensor: Tensor) -> Any:
    """Return an output nested like its shape, ready for JSON. Raises what `json_tensor.encode` does."""
    datatype = tensor.datatype
    if datatype in (Datatype.FP16, Datatype.BF16):
        raise json_tensor.no_json_form(name, datatype)
    if datatype is not Datatype.BYTES:
        if datatype.is_float and not np.isfinite(tensor.array).all():
            raise json_tensor.non_finite(tensor, name)
        return tensor.array.tolist()
    shown = np.empty(tensor.array.size, dtype=object)
    if name.endswith(_BYTES_SUFFIX):
        shown[:] = [_shown_bytes(element) for element in tensor.array.reshape(-1)]
    else:
        shown[:] = json_tensor.texts(tensor, name)
    return shown.reshape(tensor.shape).tolist()


def _shown_bytes(element: bytes | None) -> dict[str, str] | None:
    return None if element is None else {_B64: base64.b64encode(element).decode()}


def _only(columns: Mapping[str, Any]) -> Any:
    """Return the one output without its name, several as they are."""
    return next(iter(columns.values())) if len(columns) == 1 else columns
