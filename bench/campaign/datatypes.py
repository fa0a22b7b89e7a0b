"""Every datatype through every runtime by every transport: a bit-exact round trip, or a refusal that says why.

Writes the table to docs/reference/datatypes.md. Each cell is one real request to a running gateway.
"""

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench import echoes
from bench.campaign.harness import ROOT, Campaign, run
from bench.client import GrpcClient, HttpClient, decode_answer, settled
from bench.launch import serve
from turnout.core.tensor import Datatype, Tensor
from turnout.core.wire import inference_pb2

RUNTIMES: Final = ("onnx", "sklearn", "spark", "spi", "python")
TRANSPORTS: Final = ("JSON", "HTTP binary", "gRPC contents", "gRPC raw")
EXACT: Final = "bit-exact"
PAGE: Final = ROOT / "docs" / "reference" / "datatypes.md"
CONTENTS: Final = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}


INVALID: Final = (400, 3)
"""The caller's mistake, as both doors tell it: HTTP's status and gRPC's INVALID_ARGUMENT."""


class Refused(Exception):
    """The gateway refused the request; the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cell(msgspec.Struct, frozen=True):
    """The outcome of one request: `bit-exact`, `refused: …`, or `WRONG: …`."""

    runtime: str
    datatype: str
    transport: str
    outcome: str


async def by_json(clients: "Clients", name: str, tensor: Tensor) -> Tensor:
    """Send as JSON; NaN travels as null both ways."""
    values = [json_value(element) for element in tensor.array.reshape(-1).tolist()]
    entry = {"name": echoes.INPUT, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": values}
    request = {"inputs": [entry], "outputs": [{"name": output_of(name), "parameters": {"nonfinite": "null"}}]}
    answer = await clients.http.infer(name, json.dumps(request, ensure_ascii=False).encode())
    if answer.status != 200:
        raise Refused(answer.status, answer.json()["error"])
    output = answer.json()["outputs"][0]
    return from_json(Datatype(output["datatype"]), output["data"])


async def by_http_binary(clients: "Clients", name: str, tensor: Tensor) -> Tensor:
    """Send and ask for raw bytes behind the JSON header."""
    raw = bytes(tensor.raw())
    size = {"binary_data_size": len(raw)}
    entry = {"name": echoes.INPUT, "datatype": tensor.datatype, "shape": list(tensor.shape), "parameters": size}
    outputs = [{"name": output_of(name), "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": [entry], "outputs": outputs}).encode()
    headers = {"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"}
    answer = await clients.http.infer(name, header + raw, headers)
    if answer.status != 200:
        raise Refused(answer.status, answer.json()["error"])
    split = int(answer.headers["inference-header-content-length"])
    output = json.loads(answer.body[:split])["outputs"][0]
    return Tensor.from_raw("y", Datatype(output["datatype"]), output["shape"], answer.body[split:])


async def by_grpc_contents(clients: "Clients", name: str, tensor: Tensor) -> Tensor:
    """Send typed contents."""
    field = CONTENTS.get(tensor.datatype)
    request = grpc_request(name, tensor)
    values = tensor.array.reshape(-1).tolist()
    if field is None:  # FP16 and BF16 have no contents field: FP32's is the nearest that a caller might try
        request.inputs[0].contents.fp32_contents.extend(float(v) for v in values)
    else:
        getattr(request.inputs[0].contents, field).extend(values)
    return from_grpc(await clients.grpc.infer(request.SerializeToString()))


async def by_grpc_raw(clients: "Clients", name: str, tensor: Tensor) -> Tensor:
    """Send raw contents."""
    request = grpc_request(name, tensor)
    request.raw_input_contents.append(bytes(tensor.raw()))
    return from_grpc(await clients.grpc.infer(request.SerializeToString()))


SEND: Final[dict[str, Callable[..., Any]]] = dict(
    zip(TRANSPORTS, (by_json, by_http_binary, by_grpc_contents, by_grpc_raw), strict=True)
)


class Clients(msgspec.Struct):
    """Both doors of one gateway."""

    http: HttpClient
    grpc: GrpcClient


def grpc_request(name: str, tensor: Tensor) -> inference_pb2.ModelInferRequest:
    """Return a request without contents."""
    request = inference_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name=echoes.INPUT, datatype=tensor.datatype).shape.extend(tensor.shape)
    request.outputs.add(name=output_of(name))
    return request


def from_grpc(answer: Any) -> Tensor:
    """Return the one output of a gRPC answer, typed or raw."""
    if answer.status != 0:
        raise Refused(answer.status, answer.body.decode())
    response = decode_answer(answer.body)
    output = response.outputs[0]
    datatype = Datatype(output.datatype)
    if response.raw_output_contents:
        return Tensor.from_raw("y", datatype, tuple(output.shape), response.raw_output_contents[0])
    values = list(getattr(output.contents, CONTENTS[datatype]))
    if datatype is Datatype.BYTES:
        return echoes.text_tensor(values)
    return Tensor(datatype, np.array(values, datatype.dtype))


def json_value(element: Any) -> Any:
    """Return an element as JSON carries it."""
    if isinstance(element, bytes):
        return element.decode()
    if isinstance(element, float) and element != element:  # noqa: PLR0124  NaN
        return None
    return element


def from_json(datatype: Datatype, data: list[Any]) -> Tensor:
    """Return JSON data as a tensor."""
    if datatype is Datatype.BYTES:
        return echoes.text_tensor([element.encode() for element in data])
    return Tensor(datatype, np.array([np.nan if element is None else element for element in data], datatype.dtype))


def output_of(name: str) -> str:
    """Return the output's name: scikit-learn's own, else `y`."""
    if not name.startswith("sklearn"):
        return echoes.OUTPUT
    return "value" if name.endswith("FP64") else "label"


async def cell(clients: Clients, runtime: str, datatype: Datatype, transport: str, broken: dict[str, str]) -> Cell:
    """Send one request and judge its answer, bit by bit."""
    name = echoes.model_name(runtime, datatype)
    tensor = echoes.values(datatype)
    if name in broken:
        return Cell(runtime, datatype, transport, f"refused at load: {broken[name]}")
    try:
        answer = await SEND[transport](clients, name, tensor)
    except Refused as refusal:
        told = "refused" if refusal.status in INVALID else f"WRONG: status {refusal.status}"
        return Cell(runtime, datatype, transport, f"{told}: {refusal}")
    same = answer.datatype is datatype and bytes(answer.raw()) == bytes(tensor.raw())
    return Cell(runtime, datatype, transport, EXACT if same else f"WRONG: {answer!r} {answer.array.reshape(-1)[:8]!r}")


async def table(http: str, grpc: str) -> list[Cell]:
    """Fill every cell."""
    async with HttpClient(http, 1) as door, GrpcClient(grpc) as rpc:
        broken = {entry["name"]: entry["reason"] for entry in await settled(door) if entry["state"] != "READY"}
        return [
            await cell(Clients(door, rpc), runtime, datatype, transport, broken)
            for runtime in RUNTIMES
            for datatype in Datatype
            for transport in TRANSPORTS
        ]


HEAD: Final = """# Datatypes by runtime and transport

Written by `python -m bench.campaign.datatypes`: each cell is a request to a running gateway for a model that answers
what it was asked. `=` is a bit-exact round trip, a number the refusal below (400, or the version does not load).

Sent were: integers 0, 1 and both ends of each datatype, 2^53 + 1 in the 64-bit ones; floats with -0.0 and NaN (in JSON
`null` both ways), FP64 also with its smallest and largest; BYTES empty, NUL, text beyond the basic plane, and 1 MiB.
A scikit-learn model takes FP64, a column of whole numbers INT64, a column of text BYTES: `cast` in
[model.yaml](model-yaml.md) presents others.
"""


def page(cells: list[Cell]) -> str:
    """Return the table as Markdown, refusals as numbered notes."""
    notes: dict[str, int] = {}
    lines = [HEAD]
    for runtime in RUNTIMES:
        lines += [f"## {runtime}", "", f"| datatype | {' | '.join(TRANSPORTS)} |", "|---" * (len(TRANSPORTS) + 1) + "|"]
        for datatype in Datatype:
            row = [c.outcome for c in cells if (c.runtime, c.datatype) == (runtime, datatype)]
            told = [None if o == EXACT else o.replace(datatype, "DATATYPE").removeprefix("refused: ") for o in row]
            marks = ["=" if text is None else f"({notes.setdefault(text, len(notes) + 1)})" for text in told]
            lines.append(f"| {datatype} | {' | '.join(marks)} |")
        lines.append("")
    lines += ["## Refusals", ""]
    lines += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(lines) + "\n"


def shown(cell: Cell) -> str:
    """Return a cell as one line."""
    return f"{cell.runtime} {cell.datatype} by {cell.transport}: {cell.outcome}"


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Fill the table against a running gateway and count its cells."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        echoes.write_all(folder)
        with serve(folder, Path(temporary, "state"), "--allow-empty", within_s=300) as gateway:
            cells = asyncio.run(table(gateway.http, gateway.grpc))
    wanted = len(RUNTIMES) * len(Datatype) * len(TRANSPORTS)
    wrong = [c for c in cells if not c.outcome.startswith((EXACT, "refused"))]
    unnamed = [
        c
        for c in cells
        if c.outcome.startswith("refused") and not any(w in c.outcome for w in ("tensor '", "input '", c.datatype))
    ]
    campaign.note("wrong cells", [shown(c) for c in wrong])
    campaign.note("refusals that name nothing", [shown(c) for c in unnamed])
    campaign.note("bit-exact cells by runtime", dict(Counter(c.runtime for c in cells if c.outcome == EXACT)))
    campaign.note("refusals", dict(Counter(c.outcome for c in cells if c.outcome.startswith("refused"))))
    campaign.equal("cells", len(cells), wanted)
    campaign.equal("cells neither bit-exact nor refused", len(wrong), 0)
    campaign.equal("refusals that do not name tensor or datatype", len(unnamed), 0)
    campaign.at_least("bit-exact cells", sum(c.outcome == EXACT for c in cells), arguments.exact)
    if not wrong and not unnamed:
        PAGE.write_text(page(cells))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", type=int, default=212, help="bit-exact cells that there must be at least")
    run("datatypes", check, parser)
