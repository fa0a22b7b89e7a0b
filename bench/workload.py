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


def json_body(batch: npt.NDArray[np.float32]) -> bytes:
    """Return an OIP v2 JSON request for a batch of rows."""
    tensor: dict[str, Any] = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(batch.shape),
        "data": batch.ravel().tolist(),
    }
    return msgspec.json.encode({"inputs": [tensor]})


def grpc_frame(batch: npt.NDArray[np.float32]) -> bytes:
    """Return an uncompressed gRPC message frame of a ModelInfer request with raw contents."""
    request = inference_pb2.ModelInferRequest(model_name="cancer")
    tensor = request.inputs.add(name="x", datatype="FP32")
    tensor.shape.extend(batch.shape)
    request.raw_input_contents.append(batch.tobytes())
    message = request.SerializeToString()
    return b"\x00" + len(message).to_bytes(4, "big") + message
