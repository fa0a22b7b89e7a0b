"""The model behind MLServer: its own kind of custom model, over ONNX Runtime with one thread."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Cancer(MLModel):
    """Scaler and logistic regression on 30 features."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer label and probabilities."""
        tensor = payload.inputs[0]
        data = tensor.data.root
        if isinstance(data, bytes | bytearray):
            x = np.frombuffer(data, np.float32).reshape(tensor.shape)
        else:
            x = np.array(data, np.float32).reshape(tensor.shape)
        label, probabilities = self._session.run(["label", "probabilities"], {"x": x})
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="label", datatype="INT64", shape=list(label.shape), data=label.tolist()),
                ResponseOutput(
                    name="probabilities",
                    datatype="FP32",
                    shape=list(probabilities.shape),
                    data=probabilities.ravel().tolist(),
                ),
            ],
        )
