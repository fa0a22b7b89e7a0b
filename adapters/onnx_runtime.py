"""ONNX models on ONNX Runtime: the only module that imports it.

It must not cast or rename. The runtime's binding carries text, not bytes, in `tensor(string)`, and knows BF16 only as
a value of its own: both are dealt with here, bit-exact or refused by name.
"""

import asyncio
import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnxruntime as ort

from adapters import onnx_file
from adapters.interface import Adapter, LoadFailed, ModelSource, SyncModel
from turnout.core.errors import InvalidInput
from turnout.core.manifest import OnnxOptions
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Array, Datatype, Tensor, TensorMap

_DATATYPES: Final = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
_BFLOAT16: Final = 16  # onnx.TensorProto.BFLOAT16
_FATAL: Final = 4  # severity: ONNX Runtime prints nothing below it
_ZIPMAP: Final = re.compile(r"seq\(map\(")
_NOISE: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_REASON_CHARS: Final = 300

ort.disable_telemetry_events()
ort.set_default_logger_severity(_FATAL)


class OnnxModel(SyncModel):
    """A session. Calls may come from several threads at once: the runtime allows it."""

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self.signature = signature
        self.properties: Mapping[str, str] = {
            "engine": f"onnxruntime {ort.get_version_string()}",
            "providers": ",".join(session.get_providers()),
        }
        self._session = session
        # The binding itself: what the session's own `run` looks at before it calls this is known to be right here,
        # and costs as much as a small model.
        self._run: Callable[[Sequence[str], Mapping[str, Any], None], Sequence[Any]] = session._sess.run  # noqa: SLF001
        self._outputs = {spec.name: spec.datatype for spec in signature.outputs}
        self._text = tuple(spec.name for spec in signature.inputs if spec.datatype is Datatype.BYTES)
        self._bf16 = tuple(spec.name for spec in signature.inputs if spec.datatype is Datatype.BF16)
        self._is_plain = not self._text and not self._bf16
        self._numbers = Datatype.BYTES not in self._outputs.values()
        self._values = Datatype.BF16 in self._outputs.values()

    def predict(self, inputs: TensorMap, outputs: Sequence[str]) -> TensorMap:
        """Run the graph and fetch the wanted outputs only. Raises InvalidInput for BYTES that are not UTF-8."""
        feed: dict[str, Any] = {}
        for name, tensor in inputs.items():
            array = tensor.array
            # Received bytes may start anywhere; kernels may assume aligned elements.
            feed[name] = array if array.flags.aligned else array.copy()
        if not self._is_plain:
            self._encode(feed)
        if self._values:
            return self._predict_values(feed, outputs)
        results = self._run(outputs, feed, None)
        answer: dict[str, Tensor] = {}
        for name, array in zip(outputs, results, strict=True):
            datatype = self._outputs[name]
            answer[name] = Tensor(datatype, array) if self._numbers else _tensor(datatype, array)
        return answer

    def _encode(self, feed: dict[str, Any]) -> None:
        """Put text and BF16 in the binding's own form."""
        for name in self._text:
            feed[name] = _text(name, feed[name])
        for name in self._bf16:
            feed[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(feed[name].view(np.uint16), _BFLOAT16)

    def _predict_values(self, feed: dict[str, Any], outputs: Sequence[str]) -> TensorMap:
        """Run through the runtime's own values: a BF16 result has no other way out."""
        for name, value in feed.items():
            if not isinstance(value, ort.OrtValue):
                feed[name] = ort.OrtValue.ortvalue_from_numpy(value)
        results = self._session.run_with_ort_values(outputs, feed)
        return {name: self._from_value(name, value) for name, value in zip(outputs, results, strict=True)}

    def _from_value(self, name: str, value: Any) -> Tensor:
        datatype = self._outputs[name]
        if datatype is not Datatype.BF16:
            return _tensor(datatype, value.numpy())
        size = value.tensor_size_in_bytes()
        raw = ctypes.string_at(value.data_ptr(), size) if size else b""
        return Tensor.from_raw(name, datatype, value.shape(), raw)

    def close(self) -> None:
        """Drop the session; the runtime frees its memory with it."""
        del self._run, self._session


class OnnxAdapter(Adapter):
    """Loads `.onnx` files, with external data files beside them."""

    runtime = "onnx"

    async def load(self, source: ModelSource) -> OnnxModel:
        """Open a session. Raises LoadFailed with a one-line reason."""
        return await asyncio.to_thread(_load, source)


def _load(source: ModelSource) -> OnnxModel:
    options = _options(source.options)
    path = source.directory / source.artifact
    session = _session(path, options)
    missing = [name for name in options.providers if name not in session.get_providers()]
    if missing:
        raise LoadFailed(f"provider '{missing[0]}' could not be started on this machine")
    session.disable_fallback()
    return OnnxModel(session, _signature(session, path, source))


def _options(given: Mapping[str, Any]) -> OnnxOptions:
    try:
        options = msgspec.convert(dict(given), OnnxOptions)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"options: {error}") from error
    available = ort.get_available_providers()
    for name in options.providers:
        if name not in available:
            raise LoadFailed(f"options: provider '{name}' is none of {', '.join(available)}")
    return options


def _session(path: Path, options: OnnxOptions) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _FATAL
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), settings, providers=list(options.providers))
    except Exception as error:
        raise LoadFailed(f"{path.name}: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    """Return the runtime's words in one line, without the folder that the file happens to lie in."""
    text = _NOISE.sub("", str(error)).replace(f"{path.parent}/", "")
    return " ".join(text.split())[:_REASON_CHARS]


def _signature(session: ort.InferenceSession, path: Path, source: ModelSource) -> Signature:
    try:
        unranked = onnx_file.unranked(path)
    except (OSError, ValueError) as error:
        raise LoadFailed(f"{path.name}: not an ONNX file: {error}") from error
    declared = {spec.name: spec for spec in (*(source.declared.inputs or ()), *(source.declared.outputs or ()))}
    specs: dict[str, list[TensorSpec]] = {"input": [], "output": []}
    for kind, arguments in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for argument in arguments:
            datatype = _datatype(kind, argument)
            ranked = argument.shape or argument.name not in unranked
            shape = _axes(argument.shape) if ranked else _declared_shape(kind, argument.name, declared)
            specs[kind].append(TensorSpec(argument.name, datatype, shape))
    text = next((spec.name for spec in specs["input"] if spec.datatype is Datatype.BYTES), None)
    half = next((spec.name for spec in specs["output"] if spec.datatype is Datatype.BF16), None)
    if text and half:
        raise LoadFailed(f"output '{half}' is BF16 beside BYTES input '{text}': the runtime's binding cannot run that")
    return Signature(inputs=tuple(specs["input"]), outputs=tuple(specs["output"]))


def _axes(shape: Sequence[object]) -> tuple[int, ...]:
    return tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in shape)


def _declared_shape(kind: str, name: str, declared: Mapping[str, TensorSpec]) -> tuple[int, ...]:
    if name not in declared:
        raise LoadFailed(f"{kind} '{name}' has no rank in the file; declare it under signature.{kind}s in model.yaml")
    return declared[name].shape


def _datatype(kind: str, argument: Any) -> Datatype:
    datatype = _DATATYPES.get(argument.type)
    if datatype is not None:
        return datatype
    fix = "; convert without ZipMap (skl2onnx: options={'zipmap': False})" if _ZIPMAP.match(argument.type) else ""
    raise LoadFailed(f"{kind} '{argument.name}' is {argument.type}, which no tensor of the protocol holds{fix}")


def _text(name: str, array: Array) -> Array:
    """Return BYTES elements as text, since the binding takes nothing else."""
    flat = array.reshape(-1)
    texts = np.empty(flat.size, dtype=object)
    for index, element in enumerate(flat):
        try:
            texts[index] = element.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"tensor '{name}': element {index} is not UTF-8 ({error.reason} at byte {error.start}); "
                "ONNX Runtime takes text only"
            ) from error
        except AttributeError as error:
            raise InvalidInput(
                f"tensor '{name}': element {index} is null; this model takes no missing strings"
            ) from error
    return texts.reshape(array.shape)


def _tensor(datatype: Datatype, array: Array) -> Tensor:
    return Tensor.of(array) if datatype is Datatype.BYTES else Tensor(datatype, array)
