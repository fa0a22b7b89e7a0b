"""The model behind LitServe: one inference worker and one API server, over ONNX Runtime with one thread."""

import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Cancer(litserve.LitAPI):
    """Scaler and logistic regression on 30 features."""

    def setup(self, _device: str) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """Read rows."""
        return np.array(request["x"], np.float32)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the model."""
        label, probabilities = self._session.run(["label", "probabilities"], {"x": x})
        return label, probabilities

    def encode_response(self, output: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Write label and probabilities."""
        label, probabilities = output
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Cancer(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
