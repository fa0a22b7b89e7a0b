"""Writes models that answer what they were asked, one a datatype and runtime, and the values to ask them with."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import versions
from turnout.core.tensor import Datatype, Tensor

INPUT: Final = "x"
OUTPUT: Final = "y"
TEXTS: Final = (b"", b"\x00", "𝄞 é".encode(), b"a" * 1024 * 1024, b"plain")
FLOATS_64: Final = (0.1, -0.0, 5e-324, 1.7976931348623157e308, float("nan"), 2.0**53)
ECHO_JAVA: Final = """import dev.turnout.spi.*;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Answers what it was asked, in the datatype that its folder names. */
public final class EchoModel implements Model {
    private Datatype datatype;

    @Override
    public void load(Path directory, Map<String, String> options) {
        try {
            datatype = Datatype.valueOf(java.nio.file.Files.readString(directory.resolve("datatype.txt")));
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return List.of(TensorSpec.of("x", datatype, -1));
    }

    @Override
    public List<TensorSpec> outputs() {
        return List.of(TensorSpec.of("y", datatype, -1));
    }

    @Override
    public Batch predict(Batch inputs) {
        return Batch.of("y", inputs.get("x"));
    }
}
"""
ECHO_PYTHON: Final = '''"""A model that answers what it was asked."""


class Echo:
    """Hands its input back."""

    def predict(self, inputs):
        """Return y = x."""
        return {"y": inputs["x"]}
'''


def values(datatype: Datatype) -> Tensor:
    """Return the values that must survive: extremes, -0.0 and NaN, texts with NUL and of 1 MiB."""
    if datatype is Datatype.BYTES:
        return text_tensor(list(TEXTS))
    dtype = datatype.dtype
    if datatype is Datatype.BOOL:
        return Tensor(datatype, np.array([True, False, True]))
    if datatype.is_integer:
        limits = np.iinfo(dtype)
        chosen = [0, 1, int(limits.min), int(limits.max)] + ([2**53 + 1] if limits.bits == 64 else [])
        return Tensor(datatype, np.array(chosen, dtype))
    if datatype is Datatype.FP64:
        return Tensor(datatype, np.array(FLOATS_64, dtype))
    return Tensor(datatype, np.array([0.1, -0.0, 1.5, -2.25, float("nan"), 3.0e4], dtype))


def text_tensor(texts: list[bytes]) -> Tensor:
    """Return a BYTES tensor of these elements."""
    elements = np.empty(len(texts), dtype=object)
    elements[:] = texts
    return Tensor(Datatype.BYTES, elements)


def model_name(runtime: str, datatype: Datatype) -> str:
    """Return the echo's name; scikit-learn has one for each datatype that its pipelines take, else the FP64 one."""
    if runtime == "sklearn" and datatype not in (Datatype.BYTES, Datatype.INT64):
        datatype = Datatype.FP64
    return f"{runtime}-{datatype}"


def write_all(folder: Path) -> None:
    """Write an echo for every runtime and datatype."""
    for datatype in Datatype:
        write_onnx(folder / f"onnx-{datatype}", datatype)
        write_python(folder / f"python-{datatype}", datatype)
        write_spi(folder / f"spi-{datatype}", datatype)
    write_spark(folder)
    write_sklearn(folder)


def write_onnx(folder: Path, datatype: Datatype) -> None:
    """Write an Identity graph."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only checks that write models pay for it

    names = {"FP16": "FLOAT16", "BF16": "BFLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}
    element = getattr(TensorProto, names.get(datatype, datatype))
    graph = helper.make_graph(
        [helper.make_node("Identity", [INPUT], [OUTPUT])],
        "echo",
        [helper.make_tensor_value_info(INPUT, element, ["n"])],
        [helper.make_tensor_value_info(OUTPUT, element, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_python(folder: Path, datatype: Datatype) -> None:
    """Write an echo for the Python worker."""
    folder.mkdir(parents=True)
    (folder / "echo_model.py").write_text(ECHO_PYTHON)
    options = {"class": "echo_model:Echo"}
    manifest = {"runtime": "python", "artifact": "echo_model.py", "options": options, "signature": signature(datatype)}
    (folder / "model.yaml").write_text(json.dumps(manifest))


def write_spi(folder: Path, datatype: Datatype) -> None:
    """Write an echo as a jar."""
    folder.mkdir(parents=True)
    first = folder.parent / f"spi-{next(iter(Datatype))}" / "model.jar"
    if first.exists():
        (folder / "model.jar").write_bytes(first.read_bytes())
    else:
        versions.build_jar(folder / "model.jar", {"EchoModel": ECHO_JAVA})
    (folder / "datatype.txt").write_text(str(datatype))
    options = {"kind": "spi", "jars": ["model.jar"], "heap": "64m"}
    (folder / "model.yaml").write_text(json.dumps({"runtime": "jvm", "artifact": ".", "options": options}))


def write_spark(folder: Path) -> None:
    """Write a SQL echo; one pipeline does for every datatype, the declared signature makes the difference."""
    made = folder / "spark-BOOL"
    versions.write_spark_sql({made: "SELECT *, x AS y FROM __THIS__"})
    for datatype in Datatype:
        target = folder / f"spark-{datatype}"
        if target != made:
            shutil.copytree(made / "pipeline", target / "pipeline")
        options = {"kind": "spark", "heap": "512m"}
        manifest = {"runtime": "jvm", "artifact": "pipeline", "options": options, "signature": signature(datatype)}
        (target / "model.yaml").write_text(json.dumps(manifest))


def write_sklearn(folder: Path) -> None:
    """Write an echo of FP64 (a pickled regressor of ours) and classifiers that answer the text or integer they saw."""
    import cloudpickle  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    from sklearn.base import BaseEstimator, RegressorMixin  # noqa: PLC0415
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    class Echo(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
        """Answers its first column."""

        def fit(self, x: Any, _: Any = None) -> Any:
            """Take note of the number of columns."""
            self.n_features_in_ = x.shape[1]
            return self

        def predict(self, x: Any) -> Any:
            """Return x[:, 0]."""
            return x[:, 0]

    Echo.__module__ = "__main__"  # cloudpickle then carries the class itself
    sources: dict[Datatype, Any] = {Datatype.FP64: Echo().fit(np.zeros((2, 1)))}
    known = {Datatype.BYTES: [text.decode() for text in TEXTS], Datatype.INT64: list(values(Datatype.INT64).array)}
    for datatype, classes in known.items():
        frame = pd.DataFrame({INPUT: pd.Series(classes, dtype=object if datatype is Datatype.BYTES else np.int64)})
        encode = make_column_transformer((OneHotEncoder(), [INPUT]))
        target = np.array(classes, dtype=object if datatype is Datatype.BYTES else np.int64)
        sources[datatype] = make_pipeline(encode, DecisionTreeClassifier(random_state=0)).fit(frame, target)
    for datatype, model in sources.items():
        path = folder / f"sklearn-{datatype}" / "model.pkl"
        path.parent.mkdir(parents=True)
        path.write_bytes(cloudpickle.dumps(model))


def signature(datatype: Datatype) -> dict[str, Any]:
    """Return the declared signature of an echo."""
    return {
        "inputs": [{"name": INPUT, "datatype": str(datatype), "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": str(datatype), "shape": [-1]}],
    }
