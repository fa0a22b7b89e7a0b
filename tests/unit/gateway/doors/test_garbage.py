"""What a prediction leaves behind: nothing that only the garbage collector can free, tensors least of all."""

import gc

import grpc.aio
import pytest

from gateway.doors.grpc import GrpcDoor
from gateway.limits import Limits
from tests.fake_backend import FakeBackend, echo
from tests.http_conversations import ROW, gateway, hold
from turnout.core.request import PredictRequest
from turnout.core.tensor import Datatype
from turnout.core.wire import inference_pb2 as pb

REQUEST = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(ROW), ROW)


def requests_in_garbage():
    """Return how many requests only the collector finds."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        held = [
            held for found in gc.garbage for held in gc.get_referents(found)
        ]  # it does not track requests themselves
        return sum(isinstance(found, PredictRequest) for found in held)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.fixture
def collector():
    """Garbage collected up to here, and no more by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("lane", [True, False])
async def test_http_predictions_need_no_collector(collector, lane):
    """By the lane and by ASGI."""
    backend = gateway(at_once=True)
    await hold([REQUEST * 3], backend, lane=lane)
    assert len(backend.requests) == 3
    backend.requests.clear()
    assert requests_in_garbage() == 0


async def test_grpc_predictions_need_no_collector(collector):
    """Answered within the turn."""
    backend = FakeBackend({"echo": echo(Datatype.FP64)})
    door = GrpcDoor(backend, Limits(), repository_control=False, max_connection_age_s=None)
    port = await door.start("127.0.0.1", 0, reuse_port=False)
    request = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="FP64", shape=[1])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(3):
            assert await infer(request.SerializeToString())
    await door.stop(1)
    assert len(backend.requests) == 3
    backend.requests.clear()
    assert requests_in_garbage() == 0
