"""ModelInfer that waits: for its message, for its model, for a caller that is gone. No wait is for ever."""

import asyncio

import grpc

from gateway.limits import Limits
from tests.contract.grpc_client import SERVICE, raw_request, serving
from tests.fake_backend import FakeBackend, Gate, echo
from tests.waiting import eventually_async
from turnout.core import errors
from turnout.core.tensor import Datatype


async def test_a_message_that_does_not_come_is_given_up_and_counted():
    """A call that never brings its message ends when a body's time is over, in our form; none at all is a mistake."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend, Limits(body_s=0.2)) as client:
        infer = client.channel.stream_unary(f"/{SERVICE}/ModelInfer")
        call = infer(timeout=30)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.details() == "the request message did not arrive in time"
        assert dict(await call.initial_metadata())["turnout-generation"] == "7"
        assert [(route, error.code) for route, _, error in backend.refusals] == [("", errors.ErrorCode.DEADLINE)]
        for method in ("ModelInfer", "ServerLive"):
            call = client.channel.stream_unary(f"/{SERVICE}/{method}")(timeout=30)
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK


async def test_many_waiting_calls_hold_back_no_quick_one():
    """Two hundred calls that wait for their model cost a quick model's caller nothing but its turn."""
    gate = Gate()
    backend = FakeBackend({"slow": gate.model(), "m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        slow = [asyncio.ensure_future(client.infer(raw_request("slow"))) for _ in range(200)]
        await eventually_async(lambda: backend.in_flight == 200)
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        gate.open.set()
        assert {(await call).code for call in slow} == {grpc.StatusCode.OK}
    assert backend.outcomes == ["ok"] * 201


async def test_callers_that_leave_at_any_moment_are_counted_once():
    """Whenever a call is cancelled, what reached the model ends exactly once, and nothing stays under way."""
    gate = Gate()
    backend = FakeBackend({"m": gate.model()})
    async with serving(backend) as client:
        for turns in range(100):
            call = client.unary("ModelInfer")(raw_request("m"))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            call.cancel()
        last = asyncio.ensure_future(client.infer(raw_request("m"), metadata=(("turnout-request-id", "last"),)))
        await eventually_async(lambda: any(request.request_id == "last" for request in backend.requests))
        await eventually_async(lambda: backend.in_flight == 1)
        gate.open.set()
        assert (await last).code is grpc.StatusCode.OK
    assert backend.outcomes == ["cancelled"] * (len(backend.requests) - 1) + ["ok"]


async def test_a_model_that_cancels_itself_ends_its_call():
    """A model that raises what a cancelled task raises leaves no caller waiting."""
    gate = Gate()
    gate.open = CancelsItself()
    async with serving(FakeBackend({"m": gate.model()})) as client:
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.CANCELLED


class CancelsItself:
    """Something to wait for that cancels whoever waits."""

    async def wait(self):
        """Raise."""
        raise asyncio.CancelledError
