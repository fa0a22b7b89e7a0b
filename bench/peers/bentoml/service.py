"""The model behind BentoML: a service of one worker, over ONNX Runtime with one thread."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Cancer:
    """Scaler and logistic regression on 30 features."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def predict(self, x: list[list[float]]) -> dict[str, list]:
        """Answer label and probabilities."""
        label, probabilities = self._session.run(["label", "probabilities"], {"x": np.array(x, np.float32)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}
