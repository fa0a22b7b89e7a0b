"""The gRPC door before the real data plane: each call is counted once, whatever happens beside it."""

import asyncio
import contextlib
import itertools

import grpc
import grpc.aio
import numpy as np

from gateway.doors.grpc import GrpcDoor
from gateway.limits import Limits
from tests.contract.grpc_client import SERVICE, raw_request
from tests.fakes import FakeModel, Gate, entry, route, scored
from tests.waiting import eventually_async
from turnout.core.manifest import VersionLimits
from turnout.core.tensor import Tensor
from turnout.core.wire import inference_pb2 as pb

CALLERS = 8
CALLS = 100
WITHIN_S = 60


@contextlib.asynccontextmanager
async def served(plane):
    """Open a door before a plane; yields a maker of callers, each with a connection of its own."""
    door = GrpcDoor(plane.backend, Limits(), repository_control=False, max_connection_age_s=None)
    port = await door.start("127.0.0.1", 0, reuse_port=False)
    async with contextlib.AsyncExitStack() as channels:

        async def connect():
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
            await channels.enter_async_context(channel)
            return channel.unary_unary(
                f"/{SERVICE}/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )

        yield connect
    await door.stop(5)


async def test_calls_from_many_connections_are_counted_exactly(plane):
    """Requests, duration, predicted values and their sum add up to what was asked, call by call."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    async with served(plane) as connect:

        async def call_often(first):
            infer = await connect()
            for value in range(first, first + CALLS):
                answer = await infer(raw_request("m", {"x": Tensor.of(np.array([float(value)]))}), timeout=WITHIN_S)
                assert np.frombuffer(answer.raw_output_contents[1])[0] == value

        await asyncio.gather(*(call_often(number * CALLS) for number in range(CALLERS)))
    asked = CALLERS * CALLS
    assert plane.count("turnout_requests_total") == asked
    assert plane.count("turnout_requests_total", route="m", version="1", protocol="grpc", outcome="ok") == asked
    assert plane.count("turnout_request_duration_seconds_count", route="m") == asked
    assert plane.count("turnout_predict_duration_seconds_count", model="m") == asked
    assert plane.count("turnout_predicted_value_sum", output="score") == sum(range(asked))
    assert plane.count("turnout_in_flight") == 0


async def test_a_version_that_is_replaced_loses_no_call(plane):
    """While one version takes another's place, every call is answered by one of them, and none after its end."""
    closed, late = set(), []

    def model(number):
        def answer(inputs):
            late.extend(closed & {number})
            return scored(inputs)

        return FakeModel(answer)

    plane.models.update({f"m@{number}": model(number) for number in (1, 2, 3)})
    await plane.follow([entry("m@1")], [route("m", "m@1")])
    stop = asyncio.Event()
    codes = []
    async with served(plane) as connect:

        async def call_until_told():
            infer = await connect()
            while not stop.is_set():
                call = infer(raw_request("m"), timeout=WITHIN_S)
                codes.append(await call.code())

        callers = [asyncio.create_task(call_until_told()) for _ in range(CALLERS)]
        for number in (2, 3):
            before = len(codes)
            await eventually_async(lambda before=before: len(codes) > before + CALLS, WITHIN_S)
            await plane.follow([entry(f"m@{number}")], [route("m", f"m@{number}")])
            await eventually_async(lambda number=number: plane.models[f"m@{number - 1}"].closed == 1)
            closed.add(number - 1)
        stop.set()
        await asyncio.gather(*callers)
    assert set(codes) == {grpc.StatusCode.OK}
    assert late == []
    assert plane.count("turnout_requests_total", outcome="ok") == len(codes) == plane.count("turnout_requests_total")


async def test_a_waiting_call_that_is_cancelled_gives_its_place_back(plane):
    """Who leaves the model, or the queue before it, is counted cancelled; the next caller has the place."""
    gate = Gate()
    limits = VersionLimits(in_flight=1, queue_rows=8)
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), entries=[entry("m@1", limits=limits)])
    plane.replace_model("m@1", FakeModel(gate))
    async with served(plane) as connect:
        infer = await connect()
        for rounds in itertools.count(1):
            calls = [infer(raw_request("m"), timeout=WITHIN_S) for _ in range(3)]
            await eventually_async(lambda: gate.waiting == 1 and plane.count("turnout_queue_rows") == 2)
            for call in calls:
                call.cancel()
            await eventually_async(lambda: gate.waiting == 0 and plane.count("turnout_in_flight") == 0)
            if rounds == 3:
                break
        gate.event.set()
        await infer(raw_request("m"), timeout=WITHIN_S)
    assert plane.count("turnout_requests_total", outcome="cancelled") == 9
    assert plane.count("turnout_requests_total", outcome="ok") == 1
    assert plane.count("turnout_queue_rows") == 0
