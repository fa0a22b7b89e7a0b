"""Asks a route over gRPC for two flights: `python examples/clients/predict_grpc.py [HOST:PORT]`."""

import json
import sys
from pathlib import Path

import grpc

from turnout.core.wire import inference_pb2

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:8081"
request = inference_pb2.ModelInferRequest(model_name="flight-delay")
for tensor in json.loads(Path(__file__).with_name("flights.json").read_text())["inputs"]:
    entry = request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
    if tensor["datatype"] == "BYTES":
        entry.contents.bytes_contents.extend(text.encode() for text in tensor["data"])
    else:
        entry.contents.fp64_contents.extend(float("nan") if x is None else x for x in tensor["data"])

with grpc.insecure_channel(address) as channel:
    predict = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=inference_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=inference_pb2.ModelInferResponse.FromString,
    )
    answer, call = predict.with_call(request, timeout=5)

print("answered by", dict(call.initial_metadata())["turnout-version"])
for output in answer.outputs:  # typed like the request; raw contents are answered by raw contents
    typed = output.contents.int64_contents if output.datatype == "INT64" else output.contents.fp64_contents
    print(output.name, list(output.shape), list(typed))
