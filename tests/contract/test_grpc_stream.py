"""ModelStreamInfer over real sockets: Triton's wrapper, order, errors as messages, bounds, ends."""

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.limits import Limits
from tests.contract.grpc_client import raw_request, serving
from tests.fake_backend import FakeBackend, FakeModel, Gate, constant, echo, raising
from tests.waiting import eventually_async
from turnout.core import errors
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor
from turnout.core.wire import inference_pb2 as pb


async def test_each_request_is_answered_in_the_wrapper():
    """Answers come wrapped, in order, each marked as the last of its request, with its own request id."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)})) as client:
        call = client.stream(metadata=(("turnout-request-id", "s"),))
        for index in range(3):
            await call.write(raw_request("m", {"x": Tensor.of(np.array([float(index)]))}, id=f"r{index}"))
        await call.done_writing()
        answers = [answer async for answer in call]
        assert await call.code() is grpc.StatusCode.OK
        initial = dict(await call.initial_metadata())
    assert initial == {"turnout-request-id": "s", "turnout-generation": "7"}
    for index, answer in enumerate(answers):
        got = answer.infer_response
        assert answer.error_message == ""
        assert (got.model_name, got.id) == ("m", f"r{index}")
        assert np.frombuffer(got.raw_output_contents[0])[0] == index
        assert got.parameters["triton_final_response"].bool_param
        assert got.parameters["turnout-request-id"].string_param == f"s.{index}"


async def test_errors_are_messages_and_the_stream_goes_on():
    """A refused, an unreadable and a failed request each get their error message with their id; the next is served."""
    backend = FakeBackend(
        {
            "m": echo(Datatype.FP64),
            "bad": raising(RuntimeError("secret")),
            "late": raising(errors.DeadlineExceeded("time is over")),
        }
    )
    async with serving(backend) as client:
        call = client.stream(metadata=(("turnout-request-id", "s"),))
        for request in (
            raw_request("none", id="a"),
            b"\xff",
            raw_request("bad", id="c"),
            raw_request("late", id="d"),
            raw_request("m", id="e"),
        ):
            await call.write(request)
        await call.done_writing()
        answers = [answer async for answer in call]
        assert await call.code() is grpc.StatusCode.OK
    assert [answer.error_message for answer in answers] == [
        "Request for unknown model: 'none' is not found",
        "request message: is no ModelInferRequest",
        "internal error (request id s.2)",
        "time is over",
        "",
    ]
    assert [answer.infer_response.id for answer in answers] == ["a", "", "c", "d", "e"]
    assert answers[2].infer_response.parameters["turnout-version"].string_param == "bad@1"
    assert not answers[0].infer_response.model_name
    assert len(backend.refusals) == 1


async def test_requests_under_way_are_bounded_and_answered_in_order():
    """A stream has no more than its bound under way, however much is sent; slow ones do not change the order."""
    gate, seen = Gate(), []

    async def answer(inputs):
        seen.append(inputs["x"].array[0])
        await gate.open.wait()
        return {"y": inputs["x"]}

    spec = TensorSpec("x", Datatype.FP64, (-1,))
    model = FakeModel(Signature((spec,), (TensorSpec("y", Datatype.FP64, (-1,)),)), answer)
    async with serving(FakeBackend({"m": model}), Limits(stream_requests=3)) as client:
        call = client.stream()
        writing = asyncio.ensure_future(_write(call, 8))
        await eventually_async(lambda: len(seen) == 3)
        gate.open.set()
        answers = [answer async for answer in call]
        await writing
    assert seen == list(range(8))
    assert [np.frombuffer(a.infer_response.raw_output_contents[0])[0] for a in answers] == list(range(8))


async def _write(call, count):
    for index in range(count):
        await call.write(raw_request("m", {"x": Tensor.of(np.array([float(index)]))}))
    await call.done_writing()


async def test_a_slow_request_holds_back_only_its_place():
    """Requests of one stream run beside each other; answers keep the order."""
    gate = Gate()
    backend = FakeBackend({"slow": gate.model(), "m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        call = client.stream()
        await call.write(raw_request("slow", id="1"))
        await call.write(raw_request("m", id="2"))
        await eventually_async(lambda: backend.outcomes == ["ok"])
        gate.open.set()
        answers = [await call.read(), await call.read()]
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert [answer.infer_response.id for answer in answers] == ["1", "2"]


async def test_a_caller_that_leaves_a_stream_frees_its_slots():
    """Cancelling the stream cancels what is under way, and leaves the server serving."""
    gate = Gate()
    backend = FakeBackend({"m": gate.model(), "n": echo(Datatype.FP64)})
    async with serving(backend) as client:
        call = client.stream()
        await call.write(raw_request("m"))
        await call.write(raw_request("m"))
        await eventually_async(lambda: backend.in_flight == 2)
        call.cancel()
        await eventually_async(lambda: backend.outcomes == ["cancelled"] * 2)
        assert (await client.infer(raw_request("n"))).code is grpc.StatusCode.OK


async def test_an_answer_over_the_limit_is_an_error_message():
    """One answer too large is told as such and the stream goes on."""
    big = constant(y=Tensor.of(np.zeros((1, 20_000))))
    async with serving(FakeBackend({"big": big, "m": echo(Datatype.FP64)}), Limits(message_bytes=50_000)) as client:
        call = client.stream()
        await call.write(raw_request("big"))
        await call.write(raw_request("m"))
        await call.done_writing()
        answers = [answer async for answer in call]
    assert answers[0].error_message.endswith("is over the limit of 50000 bytes")
    assert answers[1].infer_response.model_name == "m"


async def test_an_idle_stream_of_a_leaving_server_is_sent_away():
    """What was read is answered, then the stream ends UNAVAILABLE with retry-after; a new one is refused."""
    gate = Gate()
    async with serving(FakeBackend({"m": gate.model()})) as client:
        call = client.stream()
        await call.write(raw_request("m", id="1"))
        await gate.reached.wait()
        client.leave()
        gate.open.set()
        assert (await call.read()).infer_response.id == "1"
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(await call.trailing_metadata())["retry-after"] == "1"


async def test_wire_shape_is_tritons_not_a_bare_response():
    """Field 1 of a streamed answer is the error, field 2 the response; a bare response would read as an error."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)})) as client:
        call = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([raw_request("m", id="1").SerializeToString()]), timeout=10
        )
        (wire,) = [answer async for answer in call]
    assert wire[0] == 2 << 3 | 2
    assert pb.ModelStreamInferResponse.FromString(wire).infer_response.id == "1"


async def test_a_caller_that_takes_no_answers_is_cut():
    """A stream whose answers are not read ends when an answer's time is over; the server serves on."""
    big = constant(y=Tensor.of(np.zeros((1, 1_000_000))))
    backend = FakeBackend({"big": big, "m": echo(Datatype.FP64)})
    async with serving(backend, Limits(write_s=0.2)) as client:
        call = client.stream()
        for _ in range(4):
            await call.write(raw_request("big"))
        await eventually_async(lambda: len(backend.outcomes) == 4)
        await eventually_async(lambda: not client.door._work._tasks)
        with pytest.raises(grpc.aio.AioRpcError):
            await _read_all(call)
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK


async def test_answers_that_are_read_late_but_in_time_all_arrive():
    """A caller may be slower than the model: it gets all answers, in order."""
    async with serving(FakeBackend({"m": echo(Datatype.UINT8)})) as client:
        call = client.stream()
        sent = [np.full(300_000, index, np.uint8) for index in range(20)]
        writing = asyncio.ensure_future(_write_all(call, sent))
        got = [np.frombuffer(answer.infer_response.raw_output_contents[0], np.uint8)[0] async for answer in call]
        await writing
    assert got == list(range(20))


async def _read_all(call):
    return [answer async for answer in call]


async def _write_all(call, arrays):
    for array in arrays:
        await call.write(raw_request("m", {"x": Tensor.of(array)}))
    await call.done_writing()
