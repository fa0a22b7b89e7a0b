"""The models of the speed checks, each written as one version's folder; what a version declares goes to model.yaml.

The same pipeline (scaler and logistic regression on 30 features) as ONNX, scikit-learn and Spark; an echo of numbers
and one of strings; and a model that costs the same processor time whatever its rows. Needs no network.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench import workload

ECHO_INPUT: Final = "x"
ECHO_OUTPUT: Final = "y"
SPARK_INPUT: Final = "x"
SLOW_S: Final = 2e-3
_SIDE: Final = 64
_TRIALS: Final = 200

_SPARK: Final = f"""
import json, sys
import numpy as np
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import StandardScaler
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

rows = np.load(sys.argv[1])
labels = np.load(sys.argv[2])
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
frame = spark.createDataFrame(
    [(Vectors.dense(row), float(label)) for row, label in zip(rows.tolist(), labels.tolist())],
    ["{SPARK_INPUT}", "label"],
)
steps = [
    StandardScaler(inputCol="{SPARK_INPUT}", outputCol="scaled", withMean=True),
    LogisticRegression(featuresCol="scaled", labelCol="label", regParam=0.01),
]
fitted = Pipeline(stages=steps).fit(frame)
fitted.write().overwrite().save(sys.argv[3])
some = fitted.transform(frame.limit(int(sys.argv[4]))).select("prediction", "probability").collect()
with open(sys.argv[5], "w") as file:
    json.dump({{"prediction": [r[0] for r in some], "probability": [r[1].toArray().tolist() for r in some]}}, file)
spark.stop()
"""


def write_echo(folder: Path) -> Path:
    """Write an ONNX graph that answers the rows of FP32 that it gets; return the artifact's path."""
    from onnx import TensorProto  # noqa: PLC0415  only checks that write models pay for it

    return _write_identity(folder, TensorProto.FLOAT, ["n", "k"])


def write_strings(folder: Path) -> Path:
    """Write an ONNX graph that answers the rows of strings that it gets; return the artifact's path."""
    from onnx import TensorProto  # noqa: PLC0415

    return _write_identity(folder, TensorProto.STRING, ["n", workload.STRINGS])


def write_sklearn(folder: Path) -> Path:
    """Fit the pipeline of `workload.py` and save it by skops; return the artifact's path."""
    import skops.io  # noqa: PLC0415
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    data = load_breast_cancer()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.asarray(data.data), data.target)
    path = folder / "model.skops"
    folder.mkdir(parents=True, exist_ok=True)
    skops.io.dump(pipeline, path)
    return path


def write_spark(folder: Path, rows: npt.NDArray[np.float64], count: int) -> dict[str, npt.NDArray[np.float64]]:
    """Fit and save a PipelineModel over a vector column; return what `transform` answers for the first `count` rows."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    inputs = [folder.parent / name for name in ("rows.npy", "labels.npy")]
    for path, array in zip(inputs, (rows, load_breast_cancer().target), strict=True):
        np.save(path, array)
    answers = folder.parent / "answers.json"
    words = [*map(str, inputs), str(folder / "pipeline"), str(count), str(answers)]
    subprocess.run([sys.executable, "-c", _SPARK, *words], check=True, capture_output=True, timeout=300)
    _declare(
        folder,
        runtime="jvm",
        artifact="pipeline",
        options={"kind": "spark"},
        signature={
            "inputs": [{"name": SPARK_INPUT, "datatype": "FP64", "shape": [-1, workload.FEATURES]}],
            "outputs": [
                {"name": "prediction", "datatype": "FP64", "shape": [-1]},
                {"name": "probability", "datatype": "FP64", "shape": [-1, 2]},
            ],
        },
    )
    return {name: np.array(values) for name, values in json.loads(answers.read_text()).items()}


def write_slow(folder: Path, *, batching: bool) -> float:
    """Write an ONNX graph that answers 2x after about 2 ms of processor time; return what it takes here, in seconds.

    The time goes into multiplying small matrices that do not grow with the rows; how many is measured here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(_slow_graph(100))
    each_s = _call_s(path) / 100
    path.write_bytes(_slow_graph(max(1, round(SLOW_S / each_s))))
    if not batching:
        _declare(folder, batching=False)
    return _call_s(path)


def _declare(folder: Path, **manifest: Any) -> None:
    (folder / "model.yaml").write_text(json.dumps(manifest, indent=2))


def _slow_graph(products: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    matrix = np.eye(_SIDE, dtype=np.float32)
    constants = {"two": np.float32(2), "zero": np.float32(0), "m": matrix, "axes": np.array([0, 1], np.int64)}
    # It depends on the input, or ONNX Runtime would work it out once and for all.
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["m", "nothing"], ["p0"]),
        *(helper.make_node("MatMul", [f"p{at}", "m"], [f"p{at + 1}"]) for at in range(products)),
        helper.make_node("ReduceSum", [f"p{products}", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["still_nothing"]),
        helper.make_node("Mul", ["x", "two"], ["double"]),
        helper.make_node("Add", ["double", "still_nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", workload.FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", workload.FEATURES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return _serialised(graph)


def _call_s(path: Path) -> float:
    """Return the median time of one call on one thread."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = np.ones((1, workload.FEATURES), np.float32)
    taken: list[float] = []
    for _ in range(_TRIALS):
        began_s = time.thread_time()
        session.run(None, {"x": rows})
        taken.append(time.thread_time() - began_s)
    return float(np.median(taken))


def _write_identity(folder: Path, element: int, shape: list[str | int]) -> Path:
    from onnx import helper  # noqa: PLC0415

    graph = helper.make_graph(
        [helper.make_node("Identity", [ECHO_INPUT], [ECHO_OUTPUT])],
        "echo",
        [helper.make_tensor_value_info(ECHO_INPUT, element, shape)],
        [helper.make_tensor_value_info(ECHO_OUTPUT, element, shape)],
    )
    path = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_serialised(graph))
    return path


def _serialised(graph: Any) -> bytes:
    from onnx import helper  # noqa: PLC0415

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return bytes(model.SerializeToString())
