"""Models of the speed checks beside that of `workload.py`: an echo of numbers, one of strings, a scikit-learn twin.

Each is written into a folder that the caller names, as one version with its artifact.
"""

from pathlib import Path

import numpy as np

from bench import workload

ECHO_INPUT = "x"
ECHO_OUTPUT = "y"


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


def _write_identity(folder: Path, element: int, shape: list[str | int]) -> Path:
    from onnx import helper  # noqa: PLC0415

    graph = helper.make_graph(
        [helper.make_node("Identity", [ECHO_INPUT], [ECHO_OUTPUT])],
        "echo",
        [helper.make_tensor_value_info(ECHO_INPUT, element, shape)],
        [helper.make_tensor_value_info(ECHO_OUTPUT, element, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
