"""Models that echo tensors, laid out for each adapter, and how each adapter is run."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import joblib
import ml_dtypes
import msgspec
import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from adapters.catalog import adapter_for
from adapters.interface import LoadedModel, ModelSource
from adapters.threads import ThreadedModel
from tests import jvm_builds
from tests.contract.worker_models import source
from tests.supervised import connected, supervised
from turnout.core.tensor import DTYPES, Datatype, Tensor

TEXTS: Final = [b"", b"plain", b"a\0b\0", "\U0001f684 ümläut".encode(), b"x" * (1 << 20)]
NOT_TEXT: Final = b"\xff\xfe\x00"
_FLOATS: Final = [0.1, -0.0, np.nan, np.inf, -np.inf]
BITS: Final[dict[Datatype, Sequence[Any]]] = {
    Datatype.BOOL: [True, False, False, True, True],
    **{
        datatype: [np.iinfo(DTYPES[datatype]).min, np.iinfo(DTYPES[datatype]).max, 0, 1, 7]
        for datatype in Datatype
        if datatype.is_integer
    },
    Datatype.INT64: [-(2**63), 2**63 - 1, 2**53 + 1, 0, -1],
    Datatype.UINT64: [0, 2**64 - 1, 2**53 + 1, 1, 2],
    Datatype.FP16: _FLOATS,
    Datatype.BF16: _FLOATS,
    Datatype.FP32: [*_FLOATS[:4], np.float32(1e-45)],
    Datatype.FP64: [*_FLOATS[:4], 5e-324],
    Datatype.BYTES: TEXTS,
}
ONNX_TYPES: Final = {
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}


def bits(datatype: Datatype) -> Tensor:
    """Return five rows of a datatype: its ends, and what is easily lost on the way."""
    if datatype is Datatype.BYTES:
        return Tensor.of(np.array(TEXTS, object))
    return Tensor.of(np.array(BITS[datatype], DTYPES[datatype]))


class Echo(msgspec.Struct, frozen=True):
    """A laid out model: `pairs` are input and output names of each datatype that it gives back as it came."""

    source: ModelSource
    pairs: dict[Datatype, tuple[str, str]]


class AdapterRow(msgspec.Struct, frozen=True):
    """An adapter under test.

    `echoes` lays out models that together echo every datatype it takes; `broken` an artifact that cannot be loaded,
    and `told` is what the reason must say. `text_only`: BYTES that are not UTF-8 are refused.
    """

    runtime: str
    echoes: Callable[[Path], list[Echo]]
    broken: Callable[[Path], ModelSource]
    told: str
    text_only: bool

    def opened(self, model: ModelSource) -> AbstractAsyncContextManager[LoadedModel]:
        """Load a model as the gateway does, and close it."""
        in_worker = self.runtime in ("jvm", "python")
        return _in_worker(self.runtime, model) if in_worker else _in_process(self.runtime, model)


@asynccontextmanager
async def _in_process(runtime: str, model: ModelSource) -> AsyncIterator[LoadedModel]:
    loaded = ThreadedModel(await adapter_for(runtime).load(model))
    try:
        yield loaded
    finally:
        if not loaded._closed:
            await loaded.close()


@asynccontextmanager
async def _in_worker(runtime: str, model: ModelSource) -> AsyncIterator[LoadedModel]:
    async with supervised(model, runtime), connected(model) as loaded:
        yield loaded


def onnx_graph(pairs: dict[Datatype, tuple[str, str]], shape: Sequence[int | str] = ("n",)) -> bytes:
    """Return an ONNX file of identities."""
    kinds = {datatype: ONNX_TYPES.get(datatype) or getattr(TensorProto, datatype) for datatype in pairs}
    graph = helper.make_graph(
        [helper.make_node("Identity", [x], [y]) for x, y in pairs.values()],
        "echo",
        [helper.make_tensor_value_info(x, kinds[datatype], shape) for datatype, (x, _) in pairs.items()],
        [helper.make_tensor_value_info(y, kinds[datatype], shape) for datatype, (_, y) in pairs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def pairs_of(*datatypes: Datatype) -> dict[Datatype, tuple[str, str]]:
    """Return input and output names by datatype."""
    return {datatype: (f"in_{datatype.lower()}", f"out_{datatype.lower()}") for datatype in datatypes}


def _onnx_echoes(folder: Path) -> list[Echo]:
    found = []
    for name, datatypes in (
        ("rest.onnx", [datatype for datatype in Datatype if datatype is not Datatype.BF16]),
        ("bf16.onnx", [Datatype.BF16, Datatype.INT8]),
    ):
        pairs = pairs_of(*datatypes)
        (folder / name).write_bytes(onnx_graph(pairs))
        found.append(Echo(source(folder, Path(name), {}), pairs))
    return found


class EchoValue(RegressorMixin, BaseEstimator):
    """A fitted regressor that answers its first column."""

    def fit(self, rows):
        """Remember how many columns there are."""
        self.n_features_in_ = rows.shape[1]
        return self

    def predict(self, rows):
        """Answer the column."""
        return np.asarray(rows)[:, 0]


class EchoLabel(ClassifierMixin, BaseEstimator):
    """A fitted classifier on one named column, which it answers as its labels."""

    def __init__(self, categories=()) -> None:
        self.categories = categories

    def fit(self, frame):
        """Remember the column's values."""
        self.feature_names_in_ = np.array(frame.columns, object)
        self.categories_ = [np.array(self.categories)]
        self.classes_ = self.categories_[0]
        return self

    def predict(self, frame):
        """Answer the column."""
        return frame.iloc[:, 0].to_numpy()


def _sklearn_echoes(folder: Path) -> list[Echo]:
    models = {
        Datatype.FP64: (EchoValue().fit(np.zeros((1, 1))), ("x", "value")),
        Datatype.INT64: (EchoLabel([1, 2]).fit(pd.DataFrame({"c": [1]})), ("c", "label")),
        Datatype.BYTES: (EchoLabel(["a", "b"]).fit(pd.DataFrame({"c": ["a"]})), ("c", "label")),
    }
    found = []
    for datatype, (estimator, pair) in models.items():
        joblib.dump(estimator, folder / f"{datatype}.joblib")
        found.append(Echo(source(folder, Path(f"{datatype}.joblib"), {}), {datatype: pair}))
    return found


_PYTHON_ECHO: Final = """
class Echo:
    def predict(self, inputs):
        return {name.replace("in_", "out_", 1): array for name, array in inputs.items()}
"""


def _python_echoes(folder: Path) -> list[Echo]:
    pairs = pairs_of(*Datatype)
    specs = {
        half: [{"name": pair[at], "datatype": str(datatype), "shape": [-1]} for datatype, pair in pairs.items()]
        for at, half in enumerate(("inputs", "outputs"))
    }
    (folder / "echo_model.py").write_text(f"{_PYTHON_ECHO}\n    signature = {specs!r}\n")
    return [Echo(source(folder, Path(), {"class": "echo_model:Echo"}), pairs)]


def _jvm_echoes(_: Path) -> list[Echo]:
    java = Path(__file__).parents[1] / "integration" / "jvm" / "models" / "com" / "acme" / "Echo.java"
    folder = jvm_builds.java_jars([java], {"echo.jar": ["com.acme.Echo"]})
    return [Echo(source(folder, Path("echo.jar"), {}, scratch=jvm_builds.CACHE), pairs_of(*Datatype))]


def _broken(name: str, options: dict[str, object] | None = None) -> Callable[[Path], ModelSource]:
    def lay(folder: Path) -> ModelSource:
        (folder / name).write_bytes(b"this is no model\n\nat all")
        return source(folder, Path(name), options or {})

    return lay


def bf16(values: Sequence[float]) -> np.ndarray:
    """Return a BF16 array."""
    return np.array(values, ml_dtypes.bfloat16)


# One line for each adapter.
ROWS: Final = {
    "jvm": AdapterRow("jvm", _jvm_echoes, _broken("model.jar"), "model.jar: ", text_only=False),
    "onnx": AdapterRow("onnx", _onnx_echoes, _broken("model.onnx"), "model.onnx: ", text_only=True),
    "sklearn": AdapterRow("sklearn", _sklearn_echoes, _broken("model.skops"), "model.skops: ", text_only=True),
    "python": AdapterRow(
        "python",
        _python_echoes,
        _broken("broken_model.py", {"class": "broken_model:X"}),
        "SyntaxError",
        text_only=False,
    ),
}
