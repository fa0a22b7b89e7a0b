"""Metadata, readiness, configuration, statistics, repository, health and reflection over real sockets."""

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.doors.about import EXTENSIONS
from tests.contract.grpc_client import SERVICE, WITHIN_S, serving
from tests.fake_backend import FakeBackend, echo, simple
from turnout.core.errors import NotReady
from turnout.core.tensor import Datatype
from turnout.core.wire import inference_pb2 as pb

HEALTH = "grpc.health.v1.Health"
OK = grpc.StatusCode.OK


async def test_server_live_ready_and_described():
    """Live, ready and described; every answer names request and generation."""
    backend = FakeBackend({})
    async with serving(backend) as client:
        assert (await client.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)).message.live
        assert (await client.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)).message.ready
        backend.server_ready = False
        got = await client.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        assert (got.code, got.message.ready) == (OK, False)
        got = await client.ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert got.message.name == "turnout"
    assert tuple(got.message.extensions) == EXTENSIONS
    assert set(got.initial) == {"turnout-request-id", "turnout-generation"}


async def test_model_ready():
    """A model is ready or not by name and version; an unknown one is NOT_FOUND, as 404 is over HTTP."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        for request, ready in (
            (pb.ModelReadyRequest(name="m"), True),
            (pb.ModelReadyRequest(name="m", version="1"), True),
        ):
            got = await client.ask("ModelReady", request, pb.ModelReadyResponse)
            assert got.message.ready is ready
        backend.models["m"].ready = False
        got = await client.ask("ModelReady", pb.ModelReadyRequest(name="m"), pb.ModelReadyResponse)
        assert (got.code, got.message.ready) == (OK, False)
        for request in (pb.ModelReadyRequest(name="n"), pb.ModelReadyRequest(name="m", version="v10")):
            got = await client.ask("ModelReady", request)
            assert got.code is grpc.StatusCode.NOT_FOUND
            assert got.text.startswith("Request for unknown model")


async def test_model_metadata():
    """Metadata list loaded versions, platform, tensors with -1 for any length, and properties."""
    async with serving(FakeBackend({"simple": simple()})) as client:
        got = await client.ask("ModelMetadata", pb.ModelMetadataRequest(name="simple"), pb.ModelMetadataResponse)
    model = got.message
    assert (model.name, list(model.versions), model.platform) == ("simple", ["1"], "turnout_fake")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert [t.name for t in model.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert dict(model.properties) == {"owner": "tests"}


async def test_model_config():
    """The configuration is the HTTP door's, in Triton's message; what that has no field for is left out."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    values = {
        "name": "m",
        "platform": "onnx_onnxv1",
        "max_batch_size": 64,
        "input": [{"name": "x", "data_type": "TYPE_BF16", "dims": [-1, 4]}],
        "output": [{"name": "y", "data_type": "TYPE_STRING", "dims": [-1]}],
        "dynamic_batching": {},
        "unheard_of": 1,
    }
    backend.configuration = lambda name, version: values
    async with serving(backend) as client:
        got = await client.ask("ModelConfig", pb.ModelConfigRequest(name="m"), pb.ModelConfigResponse)
    config = got.message.config
    assert (config.name, config.platform, config.max_batch_size) == ("m", "onnx_onnxv1", 64)
    assert (config.input[0].data_type, list(config.input[0].dims)) == (pb.TYPE_BF16, [-1, 4])
    assert config.output[0].data_type == pb.TYPE_STRING
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


async def test_model_statistics():
    """Rows, calls, durations as count and ns, the last use in milliseconds; no name means all models."""
    async with serving(FakeBackend({"echo": echo(Datatype.FP64)})) as client:
        for name in ("", "echo"):
            got = await client.ask("ModelStatistics", pb.ModelStatisticsRequest(name=name), pb.ModelStatisticsResponse)
            (found,) = got.message.model_stats
            assert (found.name, found.version, found.last_inference) == ("echo", "1", 5)
            assert (found.inference_count, found.execution_count) == (3, 2)
            assert (found.inference_stats.success.count, found.inference_stats.compute_output.ns) == (2, 10)
        got = await client.ask("ModelStatistics", pb.ModelStatisticsRequest(name="none"))
        assert got.code is grpc.StatusCode.NOT_FOUND


async def test_repository_index():
    """The index lists name, version, state and reason, all or only the ready ones."""
    backend = FakeBackend({"a": echo(Datatype.FP64), "b": echo(Datatype.FP64)})
    backend.models["b"].ready = False
    async with serving(backend) as client:
        for request, names in (
            (pb.RepositoryIndexRequest(), ["a", "b"]),
            (pb.RepositoryIndexRequest(ready=True), ["a"]),
        ):
            got = await client.ask("RepositoryIndex", request, pb.RepositoryIndexResponse)
            assert [entry.name for entry in got.message.models] == names
        assert (got.message.models[0].version, got.message.models[0].state) == ("1", "READY")


LOADS = [
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest),
    ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest),
]


@pytest.mark.parametrize(("method", "kind"), LOADS)
async def test_load_and_unload_by_field_two(method, kind):
    """The model's name is field 2, as in Triton; a client that sends it as field 1 is told so, and nothing happens."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        got = await client.ask(method, b"\x12\x01m")
        assert got.code is OK
        assert backend.loaded + backend.unloaded == ["m"]
        got = await client.ask(method, b"\x0a\x01m")
        assert (got.code, "repository_name (field 1)" in got.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        got = await client.ask(method, kind(model_name="none"))
        assert got.code is grpc.StatusCode.NOT_FOUND
    assert backend.loaded + backend.unloaded == ["m"]


@pytest.mark.parametrize(("method", "kind"), LOADS)
async def test_code_is_never_taken_from_callers(method, kind):
    """`file:` parameters upload code and are refused, as are settings; `unload_dependents` is taken."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend) as client:
        for name in ("file:1/model.onnx", "config"):
            request = kind(model_name="m")
            request.parameters[name].bytes_param = b"code"
            got = await client.ask(method, request)
            assert (got.code, name in got.text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert not backend.loaded + backend.unloaded
        request = kind(model_name="m")
        request.parameters["unload_dependents"].bool_param = True
        assert (await client.ask(method, request)).code is OK


@pytest.mark.parametrize(("method", "kind"), LOADS)
async def test_repository_control_is_off_unless_allowed(method, kind):
    """Without it loading and unloading are PERMISSION_DENIED; the index still answers."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend, repository_control=False) as client:
        assert (await client.ask(method, kind(model_name="m"))).code is grpc.StatusCode.PERMISSION_DENIED
        assert (await client.ask("RepositoryIndex", b"")).code is OK
    assert not backend.loaded + backend.unloaded


async def test_a_fault_of_ours_is_internal(caplog):
    """An unforeseen exception behind any method is a fixed text with the request id; its cause is in the log."""
    backend = FakeBackend({})
    backend.describe = lambda name, version: {}["secret"]
    async with serving(backend) as client:
        got = await client.ask("ModelMetadata", b"", metadata=(("turnout-request-id", "r"),))
    assert (got.code, got.text) == (grpc.StatusCode.INTERNAL, "internal error (request id r)")
    assert "secret" in caplog.text


async def test_unreadable_messages_are_the_callers_mistake():
    """Each method refuses bytes that are not its message."""
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
    async with serving(FakeBackend({})) as client:
        for method in methods:
            if method != "ModelStreamInfer":
                got = await client.ask(method, b"\xff")
                assert (method, got.code) == (method, grpc.StatusCode.INVALID_ARGUMENT)
        got = await client.ask("Check", b"\xff", service=HEALTH)
        assert got.code is grpc.StatusCode.INVALID_ARGUMENT
        watch = client.channel.unary_stream(f"/{HEALTH}/Watch")(b"\xff", timeout=WITHIN_S)
        assert await watch.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_method_of_the_file_is_served():
    """No method that the proto file declares is left unimplemented."""
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    async with serving(FakeBackend({})) as client:
        for method in methods:
            call = client.channel.stream_stream(f"/{SERVICE}/{method.name}")(iter([b""]), timeout=WITHIN_S)
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await call.read() is not None
            assert (method.name, await call.code()) != (method.name, grpc.StatusCode.UNIMPLEMENTED)


async def check(client, service):
    """Return the health status of a service, or the error's code."""
    request = health_pb2.HealthCheckRequest(service=service)
    got = await client.ask("Check", request, health_pb2.HealthCheckResponse, service=HEALTH)
    return got.code if got.message is None else got.message.status


async def test_health_follows_readiness():
    """grpc.health.v1 tells the server's readiness under "" and each route's under its name."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    serving_, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async with serving(backend) as client:
        assert [await check(client, name) for name in ("", SERVICE, "m")] == [serving_] * 3
        assert await check(client, "nobody") is grpc.StatusCode.NOT_FOUND
        backend.models["m"].ready = False
        assert [await check(client, name) for name in ("", "m")] == [serving_, not_serving]
        backend.server_ready = False
        assert await check(client, "") == not_serving


class Starting(FakeBackend):
    """A gateway before its first routes: it cannot tell yet which names are unknown."""

    def is_model_ready(self, name, version):
        """Refuse, as the gateway does."""
        raise NotReady("no routes are in force yet")


async def test_health_before_the_first_routes():
    """A service that may come with the routes is not serving, rather than unknown; so a watcher hears as well."""
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    async with serving(Starting({})) as client:
        assert await check(client, "m") == not_serving
        watch = client.channel.unary_stream(
            f"/{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )(health_pb2.HealthCheckRequest(service="m").SerializeToString(), timeout=WITHIN_S)
        assert (await watch.read()).status == not_serving
        watch.cancel()


async def test_health_watch_tells_changes():
    """Watch tells the state now and at each change; a route that is unknown now may come."""
    backend = FakeBackend({})
    async with serving(backend) as client:
        watch = client.channel.unary_stream(
            f"/{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )(health_pb2.HealthCheckRequest(service="m").SerializeToString(), timeout=WITHIN_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        backend.models["m"] = echo(Datatype.FP64)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        backend.models["m"].ready = False
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_a_leaving_server_ends_watches():
    """While it drains, a watcher hears NOT_SERVING and is sent away."""
    async with serving(FakeBackend({})) as client:
        watch = client.channel.unary_stream(
            f"/{HEALTH}/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )(b"", timeout=WITHIN_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        reading = asyncio.ensure_future(watch.read())
        client.leave(relieved=False)
        assert (await reading).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("service", ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"])
async def test_reflection_describes_what_is_served(service):
    """Reflection lists the services and gives the files of inference and health; nothing else is in its pool."""
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=HEALTH),
        reflection_pb2.ServerReflectionRequest(file_by_filename="google/protobuf/struct.proto"),
    ]
    async with serving(FakeBackend({})) as client:
        call = client.channel.stream_stream(
            f"/{service}/ServerReflectionInfo",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter(asked), timeout=WITHIN_S)
        answers = [answer async for answer in call]
    assert {s.name for s in answers[0].list_services_response.service} >= {SERVICE, HEALTH}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        for answer in answers[1:3]
    ]
    assert [file.package for file in files] == ["inference", "grpc.health.v1"]
    assert files[0].SerializeToString() == pb.DESCRIPTOR.serialized_pb
    assert answers[3].HasField("error_response")
