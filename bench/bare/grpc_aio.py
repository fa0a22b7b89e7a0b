"""The bare gRPC handler that the gateway is measured against: grpc.aio, protobuf, one ONNX Runtime session."""

import os
import sys

import grpc
import numpy as np
import onnxruntime

from turnout.core.wire import inference_pb2

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_options.inter_op_num_threads = 1
_session = onnxruntime.InferenceSession(os.environ["BARE_MODEL"], _options, providers=["CPUExecutionProvider"])
_names = [output.name for output in _session.get_outputs()]


async def infer(
    request: inference_pb2.ModelInferRequest, _: grpc.aio.ServicerContext
) -> inference_pb2.ModelInferResponse:
    """Answer one prediction, raw in and raw out."""
    x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
    label, probabilities = _session.run(_names, {"x": x})
    response = inference_pb2.ModelInferResponse(model_name="cancer")
    response.outputs.add(name=_names[0], datatype="INT64", shape=label.shape)
    response.outputs.add(name=_names[1], datatype="FP32", shape=probabilities.shape)
    response.raw_output_contents.append(label.tobytes())
    response.raw_output_contents.append(probabilities.tobytes())
    return response


async def main() -> None:
    """Serve until killed; prints the port."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=inference_pb2.ModelInferRequest.FromString,
        response_serializer=inference_pb2.ModelInferResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
