"""The model behind KServe's Python SDK: its own kind of custom model, over ONNX Runtime with one thread."""

import os
import uuid
from typing import Any

import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Cancer(Model):
    """Scaler and logistic regression on 30 features."""

    def __init__(self) -> None:
        super().__init__("cancer")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        """Answer label and probabilities; the id must be a text, so that one is made up where the caller sends none."""
        x = payload.inputs[0].as_numpy().astype(np.float32, copy=False)
        label, probabilities = self._session.run(["label", "probabilities"], {"x": x})
        outputs = []
        for name, datatype, array in (("label", "INT64", label), ("probabilities", "FP32", probabilities)):
            output = InferOutput(name, list(array.shape), datatype)
            output.set_data_from_numpy(array, binary_data=payload.from_grpc)
            outputs.append(output)
        return InferResponse(payload.id or uuid.uuid4().hex, "cancer", outputs)


if __name__ == "__main__":
    ModelServer(workers=1).start([Cancer()])
