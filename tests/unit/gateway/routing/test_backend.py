"""The gateway as doors see it: metadata, index, configuration, statistics, readiness."""

import pytest

from gateway.observe.metrics import Metrics
from gateway.routing.described import batch_rows, platform
from tests.fakes import SIGNATURE, FakeModel, entry, raising, request, route
from turnout.core.errors import ModelFault, NotFound, NotReady
from turnout.core.ids import VersionRef
from turnout.core.manifest import Batching, Runtime
from turnout.core.signature import Signature, TensorSpec
from turnout.core.status import Outcome
from turnout.core.tensor import Datatype


async def test_metadata_of_routes_and_versions(plane):
    """A route is described by its champion and lists the loaded versions of its model, ascending."""
    part = Signature(SIGNATURE.inputs[:1], SIGNATURE.outputs)
    models = {f"m@{number}": FakeModel(signature=part) for number in (10, 9, 2)}
    entries = [entry(version) for version in (*models, "m@3")]
    await plane.serve(models, route("m", "m@9"), route("other", "m@2"), entries=entries)
    described = plane.backend.describe("m", None)
    assert described.name == "m"
    assert described.versions == ("2", "9", "10")
    assert described.inputs == SIGNATURE.inputs
    assert described.outputs == SIGNATURE.outputs
    assert described.properties["engine"] == "fake 1"
    assert described.platform == "python_worker"
    assert plane.backend.describe("m", 2).versions == ("2", "9", "10")
    assert plane.backend.describe("other", 9).name == "other"
    with pytest.raises(NotFound, match="Request for unknown model: 'nope' is not found"):
        plane.backend.describe("nope", None)
    with pytest.raises(NotFound, match="version 4 is not found"):
        plane.backend.describe("m", 4)
    with pytest.raises(NotReady):
        plane.backend.describe("m", 3)


async def test_declared_inputs_are_the_routes(plane):
    """A route that declares its inputs shows those."""
    extra = TensorSpec("extra", Datatype.FP32, (-1,))
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1", signature=(*SIGNATURE.inputs, extra)))
    assert plane.backend.describe("m", None).inputs == (*SIGNATURE.inputs, extra)


async def test_readiness_of_models(plane):
    """A route is ready when its champion is; a version by itself."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), route("n", "m@2"), entries=[entry("m@1"), entry("m@2")])
    assert plane.backend.is_model_ready("m", None)
    assert plane.backend.is_model_ready("n", 1)
    assert not plane.backend.is_model_ready("n", None)
    assert not plane.backend.is_model_ready("m", 2)
    with pytest.raises(NotFound):
        plane.backend.is_model_ready("m", 3)
    with pytest.raises(NotFound):
        plane.backend.is_model_ready("nope", None)


async def test_no_name_is_unknown_before_the_first_routes(plane):
    """While a start only holds versions, every question about an unknown name says that it is too early."""
    await plane.serve({"m@1": FakeModel()}, routes_generation=0)
    backend = plane.backend
    for ask in (backend.describe, backend.is_model_ready, backend.configuration, backend.statistics):
        for name, version in (("m", 2), ("nope", None), ("nope", 1)):
            with pytest.raises(NotReady, match="no routes are in force yet"):
                ask(name, version)
    assert backend.is_model_ready("m", 1)


async def test_what_is_known_and_not_loaded_is_not_ready(plane):
    """A model that was unloaded, and a version that nothing loads, are not ready rather than unknown."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), catalogue=("m@7", "idle@1"))
    assert not plane.backend.is_model_ready("m", 7)
    assert not plane.backend.is_model_ready("idle", None)
    assert not plane.backend.is_model_ready("idle", 1)
    with pytest.raises(NotFound):
        plane.backend.is_model_ready("idle", 2)
    with pytest.raises(NotFound, match="'idle' is not found"):
        plane.backend.describe("idle", None)


async def test_index_lists_all_that_is_known(plane):
    """Loaded, failed, unloaded and broken versions are listed with state and reason, in order."""
    await plane.serve(
        {"m@10": FakeModel(), "m@2": FakeModel()},
        entries=[entry("m@10"), entry("m@2"), entry("m@3")],
        catalogue=("m@1",),
        problems={"broken": "model.yaml:3: unknown key", "m@4": "two artifacts"},
    )
    listed = [(item.name, item.version, item.state, item.reason) for item in plane.backend.index(ready_only=False)]
    assert listed == [
        ("broken", "", "UNAVAILABLE", "model.yaml:3: unknown key"),
        ("m", "1", "UNAVAILABLE", "not loaded"),
        ("m", "2", "READY", ""),
        ("m", "3", "UNAVAILABLE", "no fake model for m@3"),
        ("m", "4", "UNAVAILABLE", "two artifacts"),
        ("m", "10", "READY", ""),
    ]
    assert [item.version for item in plane.backend.index(ready_only=True)] == ["2", "10"]


async def test_before_the_first_snapshot(plane):
    """Nothing is listed, nothing is found wanting: the server is not ready yet."""
    assert plane.backend.index(ready_only=False) == []
    assert plane.backend.generation == 0
    with pytest.raises(NotReady):
        plane.backend.describe("m", None)


async def test_configuration_is_tritons(plane):
    """Dims leave the axis of rows out where batches are possible; text is TYPE_STRING."""
    inputs = (TensorSpec("x", Datatype.FP32, (-1, 30)), TensorSpec("name", Datatype.BYTES, (-1,)))
    models = {
        "m@1": FakeModel(signature=Signature(inputs, SIGNATURE.outputs)),
        "fixed@1": FakeModel(signature=Signature((TensorSpec("x", Datatype.INT32, (1, 16)),), SIGNATURE.outputs)),
    }
    await plane.serve(models, route("m", "m@1"))
    configured = plane.backend.configuration("m", None)
    assert configured["max_batch_size"] == 64
    assert configured["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [30]},
        {"name": "name", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
    ]
    fixed = plane.backend.configuration("fixed", 1)
    assert fixed["max_batch_size"] == 0
    assert fixed["input"] == [{"name": "x", "data_type": "TYPE_INT32", "dims": [1, 16]}]


async def test_statistics_count_rows_calls_and_failures(plane):
    """Rows, calls and requests are counted apart, and summed over the machine's processes."""
    model = FakeModel()
    await plane.serve({"m@1": model, "m@2": FakeModel()}, route("m", "m@1"))
    for _ in range(3):
        await plane.predict(request([1.0, 2.0]))
    model.answer = raising(ValueError("x"))
    with pytest.raises(ModelFault):
        await plane.predict(request())
    other = Metrics(plane.directory, 1)
    other.arm("m", VersionRef("m", 1), "champion").requests("grpc", Outcome.OK).add(10)
    other.version(VersionRef("m", 1)).batch_rows.observe(7)
    (found,) = plane.backend.statistics("m", None)
    assert (found.name, found.version) == ("m", "1")
    assert (found.inference_count, found.execution_count) == (13, 4)
    assert (found.success.count, found.fail.count) == (13, 1)
    assert found.success.ns > 0
    assert found.fail.ns > 0
    assert found.compute_infer.count == 4
    assert found.compute_infer.ns > 0
    assert found.last_inference_ms > 1_600_000_000_000
    assert [item.version for item in plane.backend.statistics(None, None)] == ["1", "2"]
    (unused,) = plane.backend.statistics("m", 2)
    assert (unused.inference_count, unused.success.count, unused.last_inference_ms) == (0, 0, 0)
    for name, version in (("nope", None), ("m", 9), ("nope", 1)):
        with pytest.raises(NotFound):
            plane.backend.statistics(name, version)


@pytest.mark.parametrize(
    ("runtime", "artifact", "options", "name"),
    [
        (Runtime.ONNX, "model.onnx", {}, "onnxruntime_onnx"),
        (Runtime.SKLEARN, "model.skops", {}, "sklearn_skops"),
        (Runtime.JVM, "model.jar", {}, "jvm_spi"),
        (Runtime.JVM, "pipeline", {}, "spark_pipeline"),
        (Runtime.JVM, "x.jar", {"kind": "spark"}, "spark_pipeline"),
        (Runtime.PYTHON, ".", {}, "python_worker"),
        (Runtime.REMOTE, "", {}, "remote_oip"),
    ],
)
def test_platforms(runtime, artifact, options, name):
    """Each runtime has a platform name of the form `<project>_<format>`."""
    fields = {"model": "m", "number": 1, "digest": "d", "files": ()}
    version = type(entry("m@1"))(**fields, runtime=runtime, artifact=artifact, options=options)
    assert platform(version) == name


@pytest.mark.parametrize(("batching", "rows"), [(True, 64), (False, 0), (Batching(max_rows=8), 8)])
def test_batch_rows(batching, rows):
    """The declared bound, its default, or none."""
    assert batch_rows(entry("m@1", batching=batching), SIGNATURE) == rows
