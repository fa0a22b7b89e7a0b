"""Calls the HTTP door in memory, as plain ASGI."""

import json
from typing import Any

import httpx
import numpy as np

from gateway.doors.http import HttpDoor
from gateway.limits import Limits
from tests.fake_backend import FakeBackend
from turnout.core.tensor import DTYPES, Datatype, Tensor


def client(backend: FakeBackend, limits: Limits | None = None, *, repository_control: bool = True) -> httpx.AsyncClient:
    """Return a client whose requests reach the door without a socket."""
    app = HttpDoor(backend, limits or Limits(), repository_control=repository_control)
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://door", headers={"accept-encoding": "identity"})


def sent(name: str, datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    """Return an input tensor in JSON form."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {**tensor, "parameters": parameters} if parameters else tensor


def binary_body(document: dict[str, Any], *raws: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a body with raw tensors behind its JSON, and the header that says so."""
    text = json.dumps(document).encode()
    return b"".join((text, *raws)), {"inference-header-content-length": str(len(text))}


def binary_input(name: str, tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """Return an input tensor in binary form: its JSON entry and its bytes."""
    raw = bytes(tensor.raw())
    entry = {
        "name": name,
        "datatype": str(tensor.datatype),
        "shape": list(tensor.shape),
        "parameters": {"binary_data_size": len(raw)},
    }
    return entry, raw


def read_answer(answer: httpx.Response) -> dict[str, Tensor]:
    """Return the outputs of an answer in either form, checking that the sizes add up."""
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    document, raws = json.loads(answer.content[:length]), answer.content[length:]
    outputs: dict[str, Tensor] = {}
    for output in document["outputs"]:
        tensor_shape = tuple(output["shape"])
        if "data" in output:
            outputs[output["name"]] = Tensor.of(np.array(output["data"]).reshape(tensor_shape))
            continue
        size = output["parameters"]["binary_data_size"]
        from_raw = Tensor.from_raw(output["name"], Datatype(output["datatype"]), tensor_shape, raws[:size])
        outputs[output["name"]], raws = from_raw, raws[size:]
    assert raws == b""
    return outputs


def error_of(answer: httpx.Response) -> str:
    """Return the text of an error answer, checking its form and our headers."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["turnout-request-id"]
    assert answer.headers["turnout-generation"]
    document = answer.json()
    assert list(document) == ["error"]
    return str(document["error"])


def every_datatype():
    """Return a telling tensor of each datatype."""
    extremes = {}
    for datatype, dtype in DTYPES.items():
        if datatype.is_integer:
            limits = np.iinfo(dtype)
            values = [limits.min, 0, limits.max]
        elif datatype is Datatype.BYTES:
            values = [b"", "\u00e9\U0001d11e".encode(), b"a\x00b"]
        elif datatype is Datatype.BOOL:
            values = [True, False, True]
        else:
            values = [-0.0, 1.5, -2.25]
        extremes[datatype] = Tensor(datatype, np.array(values, dtype=dtype))
    return extremes


TENSORS = every_datatype()
