"""What the gRPC door does with calls for which there is no room: refused before their message is read as protobuf."""

import grpc

from gateway.doors import grpc_predict
from gateway.limits import Limits
from tests.contract.grpc_client import raw_request, serving
from tests.fake_backend import FakeBackend, echo
from turnout.core.tensor import Datatype
from turnout.core.wire import inference_pb2 as pb


def backend(limits=None):
    """Return a gateway of two models, of which `packed` has no room."""
    found = FakeBackend({"packed": echo(Datatype.FP64), "m": echo(Datatype.FP64)}, limits=limits)
    found.crowd("packed")
    return found


async def test_a_call_without_room_is_refused_unread(monkeypatch):
    """The status, when to come back, and who refuses; the message is never parsed. Other models are served."""
    behind = backend()
    async with serving(behind) as client:
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        monkeypatch.setattr(grpc_predict, "InferMessage", None)
        for version in ("", "1"):
            got = await client.infer(raw_request("packed", model_version=version))
            assert (got.code, got.text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            assert got.trailing["retry-after"] == "3"
            assert got.initial["turnout-version"] == "packed@1"
            assert got.initial["turnout-generation"] == "7"
    assert [(route, error.code) for route, _, error in behind.refusals] == [("packed", "overloaded")] * 2


async def test_messages_that_begin_otherwise_are_read():
    """A name too long for the quick look, none at all, and garbage get the answers that they always get."""
    async with serving(backend()) as client:
        for message in (raw_request("p" * 200), pb.ModelInferRequest(id="i"), b"\x0a\xff", b"\x0a\x02\xff\xff"):
            got = await client.infer(message)
            assert got.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_full_process_reads_no_messages():
    """While the process holds all it may, calls are refused without their messages, and counted; then it goes on."""
    limits = Limits(held_bytes=1000)
    behind = backend(limits)
    async with serving(behind, limits) as client:
        behind.pressure.hold(1000)
        got = await client.infer(raw_request("m"))
        assert got.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert got.text == "1000 bytes of requests are held already"
        behind.pressure.hold(-1000)
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
    assert [(route, error.code) for route, _, error in behind.refusals] == [("", "overloaded")]
