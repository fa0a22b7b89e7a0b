"""The model and the requests of the speed checks: scaler and logistic regression on 30 features, as ONNX.

It writes into a folder that the caller names and keeps no bytes in the repository.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from turnout.core.wire import inference_pb2

FEATURES = 30
STRINGS = 8


def rows() -> npt.NDArray[np.float32]:
    """Return the data set's rows."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415  only checks that train pay for the import

    return np.asarray(load_breast_cancer().data, dtype=np.float32)


def write_model(folder: Path) -> Path:
    """Train the pipeline, export it to `folder/cancer/model.onnx` and return that path."""
    from skl2onnx import convert_sklearn  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    data = load_breast_cancer()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data.astype(np.float32), data.target)
    last = pipeline.steps[-1][1]
    model = convert_sklearn(
        pipeline, initial_types=[("x", FloatTensorType([None, FEATURES]))], options={id(last): {"zipmap": False}}
    )
    path = folder / "cancer" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def json_body(batch: npt.NDArray[np.floating[Any]]) -> bytes:
    """Return an OIP v2 JSON request for a batch of rows, FP32 or FP64."""
    tensor: dict[str, Any] = {
        "name": "x",
        "datatype": f"FP{8 * batch.itemsize}",
        "shape": list(batch.shape),
        "data": batch.ravel().tolist(),
    }
    return msgspec.json.encode({"inputs": [tensor]})


def strings_body(at: int) -> bytes:
    """Return a JSON request with one row of strings that differs from number to number."""
    row = [f"value-{at}-{column}" for column in range(STRINGS)]
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1, STRINGS], "data": row}
    return msgspec.json.encode({"inputs": [tensor]})


def binary_body(elements: int, at: int) -> tuple[int, bytes]:
    """Return one row of so many FP32 elements as raw bytes, both ways: length of the JSON in front, and body."""
    raw = np.arange(at, at + elements, dtype=np.float32).tobytes()
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, elements]}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return len(head), head + raw


def grpc_message(batch: npt.NDArray[np.float32]) -> bytes:
    """Return a ModelInfer request with raw contents."""
    request = inference_pb2.ModelInferRequest(model_name="cancer")
    tensor = request.inputs.add(name="x", datatype="FP32")
    tensor.shape.extend(batch.shape)
    request.raw_input_contents.append(batch.tobytes())
    return request.SerializeToString()


def grpc_frame(batch: npt.NDArray[np.float32]) -> bytes:
    """Return the same as an uncompressed gRPC message frame."""
    message = grpc_message(batch)
    return b"\x00" + len(message).to_bytes(4, "big") + message
