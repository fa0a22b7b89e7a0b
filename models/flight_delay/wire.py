"""Flights as predict requests in three forms (HTTP JSON, HTTP binary, gRPC raw), and answers read back."""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from bench.client import Answer, decode_answer, infer_message
from models.flight_delay.features import LABEL, NUMBERS, PROBABILITIES, TEXTS
from turnout.core.tensor import Tensor, join_bytes

BINARY_HEADER: Final = "inference-header-content-length"


class Answers(NamedTuple):
    """What a version said of some flights: labels, and probabilities of being late."""

    labels: "np.typing.NDArray[np.int64]"
    late: "np.typing.NDArray[np.float64]"


class Flights:
    """The columns of many flights, ready to be cut into requests."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.count = len(frame)
        self._texts = {name: Tensor.of(frame[name].to_numpy(object)).array for name in TEXTS}
        self._strings = {name: list(frame[name]) for name in TEXTS}
        self._numbers = {name: np.ascontiguousarray(frame[name], "<f8") for name in NUMBERS}
        # In JSON a missing number is null.
        self._nullable = {name: [None if x != x else x for x in frame[name].tolist()] for name in NUMBERS}  # noqa: PLR0124

    def as_json(self, start: int, stop: int) -> bytes:
        """Return a JSON body."""
        shape = [stop - start]
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": shape, "data": values[start:stop]}
            for name, values in self._strings.items()
        ]
        inputs += [
            {"name": name, "datatype": "FP64", "shape": shape, "data": values[start:stop]}
            for name, values in self._nullable.items()
        ]
        return msgspec.json.encode({"inputs": inputs})

    def as_binary(self, start: int, stop: int) -> tuple[bytes, dict[str, str]]:
        """Return a body in the binary extension, and the headers it needs; the answer is asked in binary too."""
        raw = self._raw(start, stop)
        head = msgspec.json.encode(
            {
                "inputs": [
                    {
                        "name": name,
                        "datatype": datatype,
                        "shape": shape,
                        "parameters": {"binary_data_size": len(data)},
                    }
                    for name, (datatype, shape, data) in raw.items()
                ],
                "parameters": {"binary_data_output": True},
            }
        )
        body = b"".join([head, *(data for _, _, data in raw.values())])
        return body, {BINARY_HEADER: str(len(head))}

    def as_message(self, start: int, stop: int, name: str, version: str = "") -> bytes:
        """Return a serialised ModelInferRequest with raw contents."""
        return infer_message(name, self._raw(start, stop), version)

    def _raw(self, start: int, stop: int) -> dict[str, tuple[str, list[int], bytes]]:
        shape = [stop - start]
        raw = {name: ("BYTES", shape, join_bytes(values[start:stop])) for name, values in self._texts.items()}
        return raw | {name: ("FP64", shape, values[start:stop].tobytes()) for name, values in self._numbers.items()}


def read_http(answer: Answer) -> Answers:
    """Return what an HTTP answer says, JSON or binary."""
    length = int(answer.headers.get(BINARY_HEADER, len(answer.body)))
    outputs = {output["name"]: output for output in msgspec.json.decode(answer.body[:length])["outputs"]}
    at = length
    arrays: dict[str, Any] = {}
    for name, output in outputs.items():
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[name] = np.array(output["data"])
        else:
            arrays[name] = np.frombuffer(answer.body[at : at + size], "<i8" if name == LABEL else "<f8")
            at += size
    return _answers(arrays)


def read_grpc(answer: Answer) -> Answers:
    """Return what a gRPC answer says."""
    message = decode_answer(answer.body)
    kinds = ["<i8" if output.name == LABEL else "<f8" for output in message.outputs]
    arrays = {
        output.name: np.frombuffer(raw, kind)
        for output, raw, kind in zip(message.outputs, message.raw_output_contents, kinds, strict=True)
    }
    return _answers(arrays)


def _answers(arrays: dict[str, Any]) -> Answers:
    return Answers(arrays[LABEL].astype(np.int64), arrays[PROBABILITIES].astype(np.float64).reshape(-1, 2)[:, 1])
