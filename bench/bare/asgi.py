"""The bare handler that the gateway is measured against: raw ASGI, orjson, one ONNX Runtime session, nothing else.

No routing, no checks, no metrics, no limits. Started by the speed check under uvicorn with uvloop and httptools.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import onnxruntime
import orjson

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_options.inter_op_num_threads = 1
_session = onnxruntime.InferenceSession(os.environ["BARE_MODEL"], _options, providers=["CPUExecutionProvider"])
_names = [output.name for output in _session.get_outputs()]
_HEADERS = [(b"content-type", b"application/json")]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer one prediction."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    tensor = orjson.loads(body)["inputs"][0]
    x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    label, probabilities = _session.run(_names, {"x": x})
    answer = orjson.dumps(
        {
            "model_name": "cancer",
            "outputs": [
                {"name": _names[0], "datatype": "INT64", "shape": label.shape, "data": label.ravel().tolist()},
                {
                    "name": _names[1],
                    "datatype": "FP32",
                    "shape": probabilities.shape,
                    "data": probabilities.ravel().tolist(),
                },
            ],
        }
    )
    length = (b"content-length", b"%d" % len(answer))
    await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]})
    await send({"type": "http.response.body", "body": answer})
