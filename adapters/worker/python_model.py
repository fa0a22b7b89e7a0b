"""A user's class inside the Python worker: its signature, its arrays, its faults.

Runs in the model's own interpreter, which needs numpy and nothing of ours but this folder (and ml_dtypes for BF16).

    class Model:
        signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}], "outputs": [...]}
        def load(self, path: str, options: dict[str, str]) -> None: ...
        def predict(self, inputs: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]: ...

`load` is optional, and so is each half of `signature` that model.yaml declares. BYTES are object arrays of bytes, None
where missing. An exception whose class is called InvalidInput is the caller's fault, any other the model's.
"""

import importlib
import math
import platform
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from adapters.worker import frames
from adapters.worker.frames import BadFrame, Part

try:
    import ml_dtypes

    _BF16: Any = np.dtype(ml_dtypes.bfloat16)
except ImportError:  # the model's environment need not have it
    _BF16 = None

_DTYPES: Final = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": _BF16,
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items() if dtype is not None}


class Refused(Exception):
    """An ERROR frame to send: `code` of the protocol, and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Spec:
    """A tensor of the signature."""

    def __init__(self, name: str, datatype: str, shape: Sequence[int], nullable: bool) -> None:  # noqa: FBT001
        self.name = name
        self.datatype = datatype
        self.shape = tuple(shape)
        self.nullable = nullable
        if datatype not in frames.CODES:
            raise Refused("load_failed", f"tensor '{name}': unknown datatype {datatype}")
        if datatype == "BF16" and _BF16 is None:
            raise Refused("load_failed", f"tensor '{name}' is BF16: install ml_dtypes beside numpy")


class Served:
    """The model, with the signature that it has or that was declared. Raises Refused when it cannot be served."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        directory, artifact = (frames.texts_of(parts[name])[0] for name in ("directory", "artifact"))
        options = {row[0]: row[1] for row in frames.rows_of(parts["options"], 2)}
        sys.path.insert(0, directory)
        self._model = _instance(options.get("class", ""))
        if hasattr(self._model, "load"):
            self._model.load(str(Path(directory) / artifact), options)
        given = getattr(self._model, "signature", None) or {}
        self.inputs = _specs("inputs", given, parts)
        self.outputs = _specs("outputs", given, parts)
        samples = [
            Part(name.removeprefix("sample."), *part[1:]) for name, part in parts.items() if name.startswith("sample.")
        ]
        if samples and {part.name for part in samples} == {spec.name for spec in self.inputs}:
            self.predict(samples)

    def predict(self, parts: Iterable[Part]) -> list[Part]:
        """Run the model on the tensors of a PREDICT frame. Raises Refused."""
        wanted: set[str] | None = None
        arrays: dict[str, Any] = {}
        for part in parts:
            if part.name == ":outputs":
                wanted = set(frames.texts_of(part))
            elif not part.name.startswith(":"):
                arrays[part.name] = _array(part)
        try:
            answer = self._model.predict(arrays)
        except (Exception, SystemExit) as error:
            if any(kind.__name__ == "InvalidInput" for kind in type(error).__mro__):
                raise Refused("invalid_input", str(error)) from error
            traceback.print_exc()
            raise Refused("model_fault", f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, Mapping):
            raise Refused("model_fault", f"predict must return a dict of arrays, got {type(answer).__name__}")
        try:
            return [_answered(spec, answer) for spec in self.outputs if wanted is None or spec.name in wanted]
        except Refused:
            raise
        except Exception as error:  # numpy runs the answer's own code, as of a torch tensor that keeps gradients
            traceback.print_exc()
            raise Refused("model_fault", f"its answer is no array: {type(error).__name__}: {error}") from error

    def describe(self) -> list[Part]:
        """Return the payload of LOADED."""
        inputs = [[*_row(spec), "1" if spec.nullable else "0"] for spec in self.inputs]
        properties = [["engine", f"python {platform.python_version()}, numpy {np.__version__}"]]
        return [
            frames.table("inputs", inputs, 4),
            frames.table("outputs", [_row(spec) for spec in self.outputs], 3),
            frames.table("properties", properties, 2),
        ]


def _instance(place: str) -> Any:
    module, colon, name = place.partition(":")
    if not colon:
        raise Refused("load_failed", f"options.class must be module:Class, got {place!r}")
    try:
        return getattr(importlib.import_module(module), name)()
    except AttributeError as error:
        raise Refused("load_failed", f"module '{module}' has no usable '{name}': {error}") from error


def _specs(half: str, given: Mapping[str, Any], parts: Mapping[str, Part]) -> list[Spec]:
    if half in given:
        return [
            Spec(item["name"], item["datatype"], item["shape"], bool(item.get("nullable", False)))
            for item in given[half]
        ]
    if half not in parts:
        raise Refused("load_failed", f"neither the class nor model.yaml tells the signature's {half}")
    return [Spec(row[0], row[1], frames.shape_of(row[2]), nullable=False) for row in frames.rows_of(parts[half], 3)]


def _row(spec: Spec) -> list[str]:
    return [spec.name, spec.datatype, frames.shape_text(spec.shape)]


def _array(part: Part) -> Any:
    """Return a tensor as an array of its own: writable, and aligned whatever the frame's layout. Raises BadFrame."""
    if part.datatype == frames.BYTES:
        elements = np.empty(math.prod(part.shape), dtype=object)
        elements[:] = frames.split_elements(part.data, elements.size)
        return elements.reshape(part.shape)
    dtype = _DTYPES[part.datatype]
    if dtype is None:
        raise Refused("invalid_input", f"tensor '{part.name}': BF16 needs ml_dtypes beside the model")
    try:
        return np.frombuffer(part.data, dtype).reshape(part.shape).copy()
    except ValueError as error:
        raise BadFrame(f"tensor '{part.name}': {error}") from error


def _answered(spec: Spec, answer: Mapping[str, Any]) -> Part:
    if spec.name not in answer:
        raise Refused("model_fault", f"the model did not answer output '{spec.name}'")
    if spec.datatype == frames.BYTES:
        array = np.asarray(answer[spec.name], dtype=object)  # an array of bytes would cut trailing NULs off
        elements = [item.encode() if isinstance(item, str) else item for item in array.reshape(-1).tolist()]
        if not all(isinstance(item, bytes) or item is None for item in elements):
            raise Refused("model_fault", f"output '{spec.name}' must hold bytes or text, got {array.dtype}")
        return Part(spec.name, frames.BYTES, array.shape, frames.join_elements(elements))
    array = np.asarray(answer[spec.name])
    datatype = _NAMES.get(array.dtype.newbyteorder("<"))
    if datatype != spec.datatype:
        raise Refused("model_fault", f"output '{spec.name}' must be {spec.datatype}, the model answered {array.dtype}")
    return Part(spec.name, spec.datatype, array.shape, array.astype(_DTYPES[datatype], order="C", copy=False).tobytes())
