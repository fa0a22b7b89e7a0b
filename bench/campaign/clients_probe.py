"""Runs in the clients' own environment, where protobuf is older: asks `simple` by their messages and by our own.

`python clients_probe.py tritonclient|kserve HTTP GRPC`, the addresses as `host:port`. The two do not fit into one
process (both put messages of package `inference` into protobuf's default pool), so each gets one, with ours beside it.
Prints one JSON object: what each client was answered.
"""

import asyncio
import importlib
import json
import sys
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pool

from turnout.core.wire import inference_pb2

SENT = [[list(range(16)), [1] * 16], [list(range(100, 116)), [-7] * 16]]
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def by_tritonclient(kind: str, address: str) -> list[list[int]]:
    """Ask with tritonclient's HTTP or gRPC client; return sums and differences."""
    module = importlib.import_module(f"tritonclient.{kind}")
    client = module.InferenceServerClient(address)
    answers = []
    for rows in SENT:
        inputs = [module.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in range(2)]
        for tensor, row in zip(inputs, rows, strict=True):
            tensor.set_data_from_numpy(np.array([row], np.int32))
        result = client.infer("simple", inputs)
        answers += [result.as_numpy(f"OUTPUT{i}").reshape(-1).tolist() for i in range(2)]
    client.close()
    return answers


def by_turnout(address: str) -> list[list[int]]:
    """Ask with Turnout's own messages over a plain channel."""
    answers = []
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(METHOD)
        for rows in SENT:
            request = inference_pb2.ModelInferRequest(model_name="simple")
            for i, row in enumerate(rows):
                request.inputs.add(name=f"INPUT{i}", datatype="INT32", shape=[1, 16])
                request.raw_input_contents.append(np.array(row, "<i4").tobytes())
            answer = inference_pb2.ModelInferResponse.FromString(infer(request.SerializeToString(), timeout=30))
            answers += [np.frombuffer(raw, "<i4").tolist() for raw in answer.raw_output_contents]
    return answers


async def by_kserve(http: str, address: str) -> dict[str, Any]:
    """Ask with KServe's client by both protocols, in JSON, typed and raw form, and its health calls too."""
    kserve = importlib.import_module("kserve")
    rest = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    rpc = kserve.InferenceGRPCClient(address)
    url = f"http://{http}"
    found: dict[str, Any] = {}
    for binary in (False, True):
        form = "binary" if binary else "not binary"
        for rows in SENT:
            inputs = [kserve.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in range(2)]
            for tensor, row in zip(inputs, rows, strict=True):
                tensor.set_data_from_numpy(np.array([row], np.int32), binary_data=binary)
            request = kserve.InferRequest("simple", inputs)
            answer = await rest.infer(url, request, model_name="simple")
            found.setdefault(f"kserve REST, {form}", []).extend(outputs(answer))
            found.setdefault(f"kserve gRPC, {form}", []).extend(outputs(await rpc.infer(request)))
    ready = [await rest.is_server_live(url), await rest.is_server_ready(url), await rest.is_model_ready(url, "simple")]
    ready += [await rpc.is_server_live(), await rpc.is_server_ready(), await rpc.is_model_ready("simple")]
    await rest.close()
    await rpc.close()
    return {**found, "health": ready}


def outputs(answer: Any) -> list[list[int]]:
    """Return KServe's answered tensors as flat lists."""
    named = {output.name: output.as_numpy().reshape(-1).tolist() for output in answer.outputs}
    return [named["OUTPUT0"], named["OUTPUT1"]]


def main(client: str, http: str, address: str) -> None:
    """Ask by one foreign client and by our own messages, in turn, and print what came."""
    found: dict[str, Any]
    if client == "kserve":
        found = asyncio.run(by_kserve(http, address))
        found["turnout.core.wire beside kserve"] = by_turnout(address)
    else:
        found = {
            "tritonclient HTTP": by_tritonclient("http", http),
            "tritonclient gRPC": by_tritonclient("grpc", address),
        }
        found["turnout.core.wire beside tritonclient"] = by_turnout(address)
        found["tritonclient gRPC, after it"] = by_tritonclient("grpc", address)
    found["own pool"] = inference_pb2.ModelInferRequest.DESCRIPTOR.file.pool is not descriptor_pool.Default()
    versions = {name: version(name) for name in ("tritonclient", "kserve", "protobuf", "grpcio", "numpy")}
    sys.stdout.write("\n" + json.dumps({"found": found, "versions": versions}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
