"""What is sent in each workload, and what must come back: sets of requests whose rows differ, with expected answers.

Expected answers are worked out by the engines themselves, outside any server.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from bench import workload
from bench.client import decode_answer
from bench.speed.wire import Answer

Values: TypeAlias = dict[str, npt.NDArray[Any]]
# Reads an answer into tensors by name.
Reader: TypeAlias = Callable[[Answer], Values]

# So many requests of a set differ.
SET: Final = 64
_BIG_SET: Final = 8
_CLOSE: Final = 1e-5
_NUMPY: Final[Mapping[str, Any]] = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64}
_USER: Final = "USER"


class Requests(msgspec.Struct, frozen=True):
    """A set: the bodies, the headers that all of them carry, and what each must be answered, by tensor."""

    bodies: list[bytes]
    headers: dict[str, str]
    expected: list[Values]
    read: Reader


def json_rows(batches: Sequence[npt.NDArray[Any]], expected: list[Values]) -> Requests:
    """Return batches of rows in JSON."""
    bodies = [workload.json_body(batch) for batch in batches]
    return Requests(bodies, {"content-type": "application/json"}, expected, read_json)


def strings() -> Requests:
    """Return one row of strings each."""
    bodies = [workload.strings_body(at) for at in range(SET)]
    texts = [np.array(msgspec.json.decode(body)["inputs"][0]["data"], object) for body in bodies]
    return Requests(bodies, {"content-type": "application/json"}, [{"y": text} for text in texts], read_json)


def binary(elements: int) -> Requests:
    """Return one row of so many FP32 elements each, raw both ways, to an echo."""
    bodies, expected = [], []
    head = 0
    for at in range(SET if elements < 1 << 16 else _BIG_SET):
        head, body = workload.binary_body(elements, at)
        bodies.append(body)
        expected.append({"y": np.frombuffer(body[head:], np.float32)})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}
    return Requests(bodies, headers, expected, read_binary)


def grpc_rows(batches: Sequence[npt.NDArray[Any]], expected: list[Values]) -> Requests:
    """Return batches of rows as ModelInfer messages with raw contents."""
    return Requests([workload.grpc_message(batch) for batch in batches], {}, expected, read_grpc)


def echoed(requests: Requests) -> Requests:
    """Return the same for a server that answers the bytes that it gets."""
    expected = [{"body": np.frombuffer(body, np.uint8)} for body in requests.bodies]
    return Requests(requests.bodies, requests.headers, expected, read_bytes)


def of_onnx(path: Path, batches: Sequence[npt.NDArray[np.float32]]) -> list[Values]:
    """Return what ONNX Runtime answers for each batch."""
    import onnxruntime  # noqa: PLC0415  only checks that need it pay for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, {"x": batch}), strict=True)) for batch in batches]


def of_sklearn(path: Path, batches: Sequence[npt.NDArray[np.float64]]) -> list[Values]:
    """Return what scikit-learn answers for each batch."""
    import skops.io  # noqa: PLC0415

    model: Any = skops.io.load(path)
    return [{"label": model.predict(batch), "probabilities": model.predict_proba(batch)} for batch in batches]


def headers_of(requests: Requests, extra: Mapping[str, str], number: int) -> dict[str, str]:
    """Return all headers of one request; a value that is USER becomes the number's own user."""
    own = {name: user(number) if value == _USER else value for name, value in extra.items()}
    return {**requests.headers, **own}


def user(number: int) -> str:
    """Return the sticky key of a request of the set."""
    return f"user-{number}"


def read_json(answer: Answer) -> Values:
    """Read an answer of the Open Inference Protocol in JSON."""
    outputs = msgspec.json.decode(answer.body)["outputs"]
    return {o["name"]: np.array(o["data"], _NUMPY.get(o["datatype"], object)) for o in outputs}


def read_binary(answer: Answer) -> Values:
    """Read one FP32 tensor that follows its JSON."""
    head = int(answer.headers["inference-header-content-length"])
    (output,) = msgspec.json.decode(answer.body[:head])["outputs"]
    return {output["name"]: np.frombuffer(answer.body[head:], np.float32)}


def read_grpc(answer: Answer) -> Values:
    """Read a ModelInferResponse; peers answer in typed contents what they were sent raw."""
    response = decode_answer(answer.body)
    if not response.raw_output_contents:
        contents = {o.name: o.contents.int64_contents or o.contents.fp32_contents for o in response.outputs}
        return {name: np.array(values) for name, values in contents.items()}
    return {
        output.name: np.frombuffer(raw, _NUMPY[output.datatype])
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def read_bytes(answer: Answer) -> Values:
    """Take the body as it is."""
    return {"body": np.frombuffer(answer.body, np.uint8)}


def mismatch(answer: Answer, requests: Requests, number: int) -> str | None:
    """Say what is wrong with an answer; None when it is right: strings and integers equal, numbers within 1e-5."""
    if answer.status not in (0, 200):
        return f"request {number}: status {answer.status}: {answer.body[:200]!r}"
    found, wanted = requests.read(answer), requests.expected[number]
    if found.keys() != wanted.keys():
        return f"request {number}: outputs {sorted(found)}, not {sorted(wanted)}"
    for name, values in wanted.items():
        if not _same(found[name].ravel(), np.asarray(values).ravel()):
            return f"request {number}: {name} is {found[name].ravel()[:4]}, not {np.asarray(values).ravel()[:4]}"
    return None


def _same(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    if wanted.dtype.kind != "f":
        return np.array_equal(found, wanted)
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=_CLOSE, atol=_CLOSE)
