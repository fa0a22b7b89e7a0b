"""ModelInfer over real sockets: answers, refusals, metadata, limits, time, cancellation."""

import asyncio

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.doors.grpc import GrpcDoor
from gateway.limits import Limits
from tests.contract.grpc_client import SERVICE, ended, raw_request, serving
from tests.fake_backend import FakeBackend, Gate, constant, echo, raising, simple
from tests.waiting import eventually_async
from turnout.core import errors
from turnout.core.status import STATUS, GrpcCode
from turnout.core.tensor import Datatype, Tensor
from turnout.core.wire import inference_pb2 as pb


async def test_raw_is_answered_raw():
    """A raw request gets its bytes back, the name it used, the version that ran and its id."""
    sent = Tensor.of(np.arange(6, dtype=np.float64))
    async with serving(FakeBackend({"echo": echo(Datatype.FP64)})) as client:
        got = await client.infer(raw_request("echo", {"x": sent}, id="mine"))
    assert got.code is grpc.StatusCode.OK
    assert (got.message.model_name, got.message.model_version, got.message.id) == ("echo", "1", "mine")
    assert list(got.message.raw_output_contents) == [bytes(sent.raw())]
    assert (got.message.outputs[0].name, got.message.outputs[0].datatype) == ("y", "FP64")


async def test_typed_is_answered_typed():
    """A typed request gets typed contents."""
    contents = {"int_contents": range(16)}
    request = pb.ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16], contents=contents)
    async with serving(FakeBackend({"simple": simple()})) as client:
        got = await client.infer(request)
    assert list(got.message.outputs[0].contents.int_contents) == [2 * i for i in range(16)]
    assert not got.message.raw_output_contents


async def test_outputs_asked_for_come_alone():
    """`outputs` names what comes back; unknown names are the caller's mistake."""
    tensor = Tensor.of(np.ones((1, 16), np.int32))
    async with serving(FakeBackend({"simple": simple()})) as client:
        tensors = {"INPUT0": tensor, "INPUT1": tensor}
        got = await client.infer(raw_request("simple", tensors, outputs=[{"name": "OUTPUT1"}]))
        assert [output.name for output in got.message.outputs] == ["OUTPUT1"]
        got = await client.infer(raw_request("simple", tensors, outputs=[{"name": "OUTPUT7"}]))
        assert (got.code, "OUTPUT7" in got.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        got = await client.infer(raw_request("simple", tensors, outputs=[{"name": "OUTPUT0"}] * 2))
        assert (got.code, got.text) == (grpc.StatusCode.INVALID_ARGUMENT, "output 'OUTPUT0': asked for twice")


async def test_classification_over_the_wire():
    """An output with parameter `classification` comes as BYTES strings, value first."""
    model = constant(p=Tensor.of(np.array([[0.25, 0.75]])))
    request = raw_request("m")
    request.outputs.add(name="p").parameters["classification"].int64_param = 1
    async with serving(FakeBackend({"m": model})) as client:
        got = await client.infer(request)
    assert got.message.outputs[0].datatype == "BYTES"
    assert got.message.raw_output_contents[0] == b"\x06\x00\x00\x000.75:1"


async def test_answers_say_who_answered():
    """Initial metadata and response parameters carry request id, version, generation and fallback."""
    model = echo(Datatype.FP64)
    model.fallback = "champion"
    async with serving(FakeBackend({"m": model})) as client:
        got = await client.infer(raw_request("m"), metadata=(("turnout-request-id", "abc.1"),))
    expected = {
        "turnout-request-id": "abc.1",
        "turnout-version": "m@1",
        "turnout-generation": "7",
        "turnout-fallback": "champion",
    }
    assert got.initial == expected
    parameters = got.message.parameters
    assert {name: str(getattr(p, p.WhichOneof("parameter_choice"))) for name, p in parameters.items()} == expected


async def test_an_invalid_request_id_is_replaced():
    """Ids that could not stand in a log line are not taken."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)})) as client:
        got = await client.infer(raw_request("m"), metadata=(("turnout-request-id", "a b"),))
    assert len(got.initial["turnout-request-id"]) == 32


async def test_errors_carry_metadata_too():
    """A refusal before routing names request and generation, one after it also the version."""
    backend = FakeBackend({"m": raising(errors.WorkerLost("its process died"))})
    async with serving(backend) as client:
        got = await client.infer(raw_request("nobody"), metadata=(("turnout-request-id", "r"),))
        assert got.code is grpc.StatusCode.NOT_FOUND
        assert got.text.startswith("Request for unknown model")
        assert got.initial == {"turnout-request-id": "r", "turnout-generation": "7"}
        got = await client.infer(raw_request("m"))
        assert got.code is grpc.StatusCode.UNAVAILABLE
        assert got.initial["turnout-version"] == "m@1"


async def test_overload_says_when_to_come_back():
    """Trailing metadata carry retry-after in seconds."""
    async with serving(FakeBackend({"m": raising(errors.Overloaded("full", retry_after_s=3))})) as client:
        got = await client.infer(raw_request("m"))
    assert (got.code, got.trailing["retry-after"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "3")


def _example(kind):
    if kind is errors.MethodNotAllowed:
        return kind("text", allowed=("GET",))
    return kind("text")


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TurnoutError)]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
async def test_every_error_has_the_tables_status(kind):
    """The door's status of each kind of failure is the one table's."""
    async with serving(FakeBackend({"m": raising(_example(kind))})) as client:
        got = await client.infer(raw_request("m"))
    assert got.code.value[0] == STATUS[kind.code].grpc
    assert got.text == "text" or STATUS[kind.code].grpc is GrpcCode.INTERNAL


async def test_a_models_fault_is_told_by_request_id_only(caplog):
    """What a model raised stays in the log; the caller gets a fixed text with the request's id."""
    async with serving(FakeBackend({"m": raising(RuntimeError("secret"))})) as client:
        got = await client.infer(raw_request("m"), metadata=(("turnout-request-id", "r-9"),))
    assert (got.code, got.text) == (grpc.StatusCode.INTERNAL, "internal error (request id r-9)")
    assert "secret" in caplog.text


async def test_an_unreadable_message_is_the_callers_mistake():
    """A parse failure is INVALID_ARGUMENT, and counted as a refusal."""
    backend = FakeBackend({})
    async with serving(backend) as client:
        got = await client.infer(b"\x0a\xff\xff")
    assert (got.code, got.text) == (grpc.StatusCode.INVALID_ARGUMENT, "request message: is no ModelInferRequest")
    assert [(route, protocol, error.code) for route, protocol, error in backend.refusals] == [
        ("", "grpc", errors.ErrorCode.INVALID_INPUT)
    ]


async def test_refusals_before_routing_are_counted_by_route():
    """What the codec refuses never reaches the router; the route that was asked for is known."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        got = await client.infer(pb.ModelInferRequest(model_name="m", inputs=[{"name": "x", "datatype": "STRING"}]))
        assert got.text.startswith("tensor 'x': datatype 'STRING' is unknown; text is BYTES; known are BOOL, ")
        got = await client.infer(raw_request("m", model_version="v10"))
        assert got.code is grpc.StatusCode.NOT_FOUND
    assert [route for route, _, _ in backend.refusals] == ["m", "m"]
    assert not backend.requests


async def test_parameters_and_metadata_reach_the_router():
    """Parameters of all types arrive as they are; text metadata are the headers, binary ones are left out."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    request = raw_request("m", model_version="1")
    request.parameters["flag"].bool_param = True
    request.parameters["big"].uint64_param = 2**64 - 1
    request.parameters["fraction"].double_param = 3.3
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("x-user-id", "7"), ("x-blob-bin", b"\x00\xff"), ("traceparent", traceparent))
    async with serving(backend) as client:
        await client.infer(request, metadata=metadata)
    (seen,) = backend.requests
    assert seen.parameters == {"flag": True, "big": 2**64 - 1, "fraction": 3.3}
    assert seen.headers["x-user-id"] == "7"
    assert "x-blob-bin" not in seen.headers
    assert (seen.protocol, seen.version, seen.traceparent) == ("grpc", 1, traceparent)


async def test_the_earliest_deadline_counts():
    """The transport's own deadline, the header, the parameter and Triton's timeout: the earliest is the request's."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    request = raw_request("m")
    async with serving(backend) as client:
        await client.infer(request, timeout=20)
        await client.infer(request, timeout=20, metadata=(("turnout-deadline-ms", "9000"),))
        request.parameters["timeout"].int64_param = 5_000_000
        await client.infer(request, timeout=20, metadata=(("turnout-deadline-ms", "9000"),))
        request.parameters["turnout-deadline-ms"].int64_param = 0
        got = await client.infer(request)
    assert (got.code, "turnout-deadline-ms" in got.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    for seen, seconds in zip(backend.requests, (20, 9, 5), strict=True):
        after = seen.deadline.at_s - seen.received_s
        assert seconds - 1 < after < seconds + 0.5


async def test_a_caller_without_deadline_has_none():
    """Then the route's own deadline stands."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        await client.infer(raw_request("m"), timeout=None)
    assert backend.requests[0].deadline is None


async def test_a_caller_that_leaves_frees_its_slot():
    """Cancelling the call cancels the prediction."""
    gate = Gate()
    backend = FakeBackend({"m": gate.model()})
    async with serving(backend) as client:
        call = client.unary("ModelInfer")(raw_request("m"))
        await gate.reached.wait()
        call.cancel()
        await eventually_async(lambda: backend.outcomes == ["cancelled"])
    assert backend.in_flight == 0


async def test_a_deadline_that_passes_ends_the_prediction():
    """The caller sees DEADLINE_EXCEEDED and the prediction is cancelled."""
    gate = Gate()
    backend = FakeBackend({"m": gate.model()})
    async with serving(backend) as client:
        got = await client.infer(raw_request("m"), timeout=0.2)
        assert got.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually_async(lambda: backend.outcomes == ["cancelled"])


async def test_messages_over_the_limit_are_refused_both_ways():
    """Too large a request or answer is RESOURCE_EXHAUSTED; just below the limit both pass."""
    limits = Limits(message_bytes=100_000)
    sizes = {"small": 99_000, "big": 120_000}
    answers = {name: Tensor.of(np.zeros((1, size), np.uint8)) for name, size in sizes.items()}
    models = {name: constant(y=tensor) for name, tensor in answers.items()}
    async with serving(FakeBackend({**models, "echo": echo(Datatype.UINT8)}), limits) as client:
        for name, code in (("small", grpc.StatusCode.OK), ("big", grpc.StatusCode.RESOURCE_EXHAUSTED)):
            got = await client.infer(raw_request("echo", {"x": answers[name].reshaped([sizes[name]])}))
            assert got.code is code
            got = await client.infer(raw_request(name))
            assert got.code is code
    assert got.text.endswith("is over the limit of 100000 bytes")


async def test_gzip_is_accepted_and_its_bombs_are_not():
    """Compressed messages are read; what unpacks beyond the limit is refused, however small it came."""
    limits = Limits(message_bytes=1_000_000)
    async with serving(FakeBackend({"echo": echo(Datatype.UINT8)}), limits) as client:
        for size, code in ((900_000, grpc.StatusCode.OK), (100_000_000, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            request = raw_request("echo", {"x": Tensor.of(np.zeros(size, np.uint8))})
            got = await client.infer(request, compression=grpc.Compression.Gzip)
            assert got.code is code


async def test_metadata_over_the_limit_are_refused():
    """Header bytes are bounded; the same connection serves on."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)}), Limits(header_bytes=8192)) as client:
        got = await client.infer(raw_request("m"), metadata=(("x-long", "a" * 9000),))
        assert got.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        got = await client.infer(raw_request("m"), metadata=(("x-long", "a" * 6000),))
        assert got.code is grpc.StatusCode.OK


async def test_held_messages_are_bounded():
    """Messages that wait for answers count together; the one too many is told when to come back."""
    gate = Gate()
    limits = Limits(held_bytes=12_000)
    backend = FakeBackend({"m": gate.model()}, limits=limits)
    wide = {"x": Tensor.of(np.zeros(1000))}
    async with serving(backend, limits) as client:
        first = client.unary("ModelInfer")(raw_request("m", wide))
        await gate.reached.wait()
        got = await client.infer(raw_request("m", wide))
        assert (got.code, got.trailing["retry-after"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1")
        gate.open.set()
        await first
        assert (await client.infer(raw_request("m", wide))).code is grpc.StatusCode.OK


async def test_big_messages_of_many_elements_pass_through_threads():
    """Typed contents and strings that are decoded off the loop give the same answers."""
    values = np.arange(200_000, dtype=np.int64)
    strings = Tensor.of(np.array([b"abcdefgh"] * 50_000, dtype=object))
    backend = FakeBackend({"i": echo(Datatype.INT64), "s": echo(Datatype.BYTES)})
    async with serving(backend) as client:
        request = pb.ModelInferRequest(model_name="i")
        request.inputs.add(name="x", datatype="INT64", shape=[values.size]).contents.int64_contents.extend(values)
        got = await client.infer(request)
        assert np.array_equal(np.array(got.message.outputs[0].contents.int64_contents), values)
        got = await client.infer(raw_request("s", {"x": strings}))
        assert got.message.raw_output_contents[0] == strings.raw()
        request.inputs[0].shape[:] = [1]
        got = await client.infer(request)
        assert got.text == "tensor 'x': shape [1] takes 1 elements, got 200000"


async def test_two_calls_share_nothing_but_the_model():
    """Equal bodies for two models get two answers: nothing is remembered by body (MLServer's cache was)."""
    left, right = (constant(y=Tensor.of(np.array([value]))) for value in (1.0, 2.0))
    async with serving(FakeBackend({"left": left, "right": right})) as client:
        answers = [await client.infer(raw_request(name)) for name in ("left", "right")]
    assert [np.frombuffer(got.message.raw_output_contents[0])[0] for got in answers] == [1.0, 2.0]


async def test_unknown_methods_are_unimplemented():
    """Any other method, unary or streaming, of any service is UNIMPLEMENTED, with our metadata."""
    async with serving(FakeBackend({})) as client:
        for service, method in ((SERVICE, "TraceSetting"), ("nobody.Service", "Call")):
            got = await client.ask(method, b"", service=service)
            assert (got.code, got.text) == (grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")
            assert got.initial["turnout-generation"] == "7"
        call = client.channel.stream_stream(f"/{SERVICE}/Nothing")(timeout=10)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_long_error_texts_fit_into_a_trailer():
    """An unknown name as long as a message may be is refused by name, cut short, not by a broken connection."""
    async with serving(FakeBackend({})) as client:
        got = await client.infer(raw_request("é" * 100_000))
    assert got.code is grpc.StatusCode.NOT_FOUND
    assert got.text.startswith("Request for unknown model: 'éé")


async def test_callers_are_apart():
    """One caller's held prediction delays no other caller."""
    gate = Gate()
    async with serving(FakeBackend({"held": gate.model(), "m": echo(Datatype.FP64)})) as client:
        held = asyncio.ensure_future(ended(client.unary("ModelInfer")(raw_request("held"))))
        await gate.reached.wait()
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        gate.open.set()
        assert (await held).code is grpc.StatusCode.OK


async def test_a_port_that_is_taken_is_an_os_error():
    """Starting on a port that somebody holds fails plainly."""
    door, other = (
        GrpcDoor(FakeBackend({}), Limits(), repository_control=False, max_connection_age_s=None) for _ in range(2)
    )
    port = await door.start("127.0.0.1", 0, reuse_port=False)
    with pytest.raises(OSError, match="gRPC cannot listen on"):
        await other.start("127.0.0.1", port, reuse_port=False)
    await other.stop(0)
    await door.stop(0)


async def test_a_sequence_is_refused_and_none_is_not():
    """A sequence_id of 0 or "" means none; any other would need a model with state, and no model has it."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    none = [pb.InferParameter(int64_param=0), pb.InferParameter(uint64_param=0), pb.InferParameter(string_param="")]
    some = [pb.InferParameter(int64_param=7), pb.InferParameter(string_param="a")]
    async with serving(backend) as client:
        for value in none:
            got = await client.infer(raw_request("m", parameters={"sequence_id": value}))
            assert got.code is grpc.StatusCode.OK
        for value in some:
            got = await client.infer(raw_request("m", parameters={"sequence_id": value}))
            assert (got.code, "sequence_id" in got.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert len(backend.refusals) == len(some)
