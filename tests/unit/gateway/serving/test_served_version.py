"""A version's life: loaded, rehearsed, ready, lost and back, failed, drained."""

import asyncio
import copy
import json

import numpy as np
import pytest

from adapters.interface import LoadFailed
from gateway.serving.loading import Call
from gateway.serving.served_version import Failure
from gateway.serving.stages import Stage
from tests.fakes import SIGNATURE, FakeModel, Gate, WatchedFake, entry, numbers, raising, request, route, scored
from tests.waiting import eventually_async
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault, NotReady, Overloaded, WorkerLost
from turnout.core.manifest import Cast, DeclaredSignature, Rename, Runtime, VersionLimits
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor

X = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1.0, -2.0]}


def golden(folder, score=(1.0, -2.0), **tolerance):
    """Write a golden file and return its name."""
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]},
        {"name": "score", "datatype": "FP64", "shape": [2], "data": list(score)},
    ]
    file = {"producer": "test 1", "inputs": [X], "outputs": outputs, "tolerance": {"abs": 0.01, **tolerance}}
    (folder / "golden.json").write_text(json.dumps(file))
    return "golden.json"


async def test_loaded_version_answers(plane):
    """A version that loads and passes its golden file is ready, warm and answers."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"), entries=[entry("m@1", golden=golden(plane.folder))])
    served = plane.pool.get("m@1")
    assert served.stage is Stage.READY
    assert served.load_seconds > 0
    assert len(model.calls) > 1
    before = len(model.calls)
    prediction = await plane.predict(request([1.0, -1.0]))
    assert prediction.outputs["label"].array.tolist() == [1, 0]
    assert len(model.calls) == before + 1
    assert plane.count("turnout_predict_duration_seconds_count", version="1") == 1
    assert plane.count("turnout_model_load_seconds", model="m", version="1") == served.load_seconds


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        (LoadFailed("the file is broken"), {}, "the file is broken"),
        (RuntimeError("out\nof memory"), {}, "RuntimeError: out of memory"),
        (SystemExit(7), {}, "SystemExit: 7"),
        (FakeModel(raising(ValueError("no"))), {"golden": "golden.json"}, "the model raised ValueError: no"),
        (FakeModel(raising(InvalidInput("bad row"))), {"golden": "golden.json"}, "bad row"),
        (FakeModel(), {"golden": "absent.json"}, "absent.json: cannot be read: No such file or directory"),
        (
            FakeModel(),
            {"rename": Rename(outputs={"nothing": "y"})},
            "rename: output 'nothing' is none of the runtime's (label, score)",
        ),
        (
            FakeModel(),
            {"signature": DeclaredSignature(inputs=(TensorSpec("y", Datatype.FP64, (-1,)),))},
            "signature.inputs: 'y' is declared, the model has 'x'",
        ),
        (
            FakeModel(signature=Signature((TensorSpec("z", Datatype.FP64, (-1,)),), SIGNATURE.outputs)),
            {"golden": "golden.json"},
            "golden: tensor 'z': missing, and tensor 'x' is unknown; inputs are 'z'",
        ),
        (
            FakeModel(signature=Signature(SIGNATURE.inputs, SIGNATURE.outputs[:1])),
            {"golden": "golden.json"},
            "golden: output 'score' is none of the model's (label)",
        ),
    ],
    ids=str,
)
async def test_broken_version_fails_with_its_reason(plane, model, fields, reason):
    """Whatever is wrong with a version, it fails alone, with one line that says why, and lets its model go."""
    golden(plane.folder)
    plane.models["m@1"] = model = copy.copy(model)
    await plane.follow([entry("m@1", **fields)], [route("m", "m@1")])
    assert plane.report.versions["m@1"].reason == reason
    assert plane.states() == {"m@1": "failed"}
    with pytest.raises(NotReady):
        await plane.predict(request())
    if isinstance(model, FakeModel):
        assert model.closed == len(plane.adapter.loads)


async def test_golden_beyond_tolerance_refuses_the_load(plane):
    """A golden value that is off by more than its tolerance names tensor, row and both values."""
    name = golden(plane.folder, score=(1.0, -2.02))
    plane.models["m@1"] = FakeModel()
    await plane.follow([entry("m@1", golden=name)], [route("m", "m@1")])
    reason = plane.report.versions["m@1"].reason
    assert reason.startswith("golden: output 'score' row 1: the file has -2.02, the model answers -2.0")


async def test_presentation_is_applied_both_ways(plane):
    """The model gets its own names and datatypes, the caller the presented ones."""
    model = FakeModel()
    fields = {
        "rename": Rename(inputs={"x": "amount"}, outputs={"score": "value"}),
        "cast": Cast(inputs={"amount": Datatype.INT32}, outputs={"label": Datatype.INT8}),
    }
    plane.models["m@1"] = model
    await plane.follow([entry("m@1", **fields)], [route("m", "m@1")])
    inputs = {"amount": numbers(3, dtype=np.int32)}
    prediction = await plane.predict(request(inputs=inputs, outputs=("value", "label")))
    assert list(prediction.outputs) == ["value", "label"]
    assert prediction.outputs["label"].datatype is Datatype.INT8
    sent, wanted, _ = model.calls[-1]
    assert sent["x"].datatype is Datatype.FP64
    assert wanted == ("score", "label")


async def test_model_faults_are_named_once_and_logged(plane, caplog):
    """Whatever a model raises or answers wrongly is a ModelFault; its cause is in the log with the request id."""
    await plane.serve({"m@1": FakeModel(raising(ZeroDivisionError("secret")))}, route("m", "m@1"))
    with pytest.raises(ModelFault):
        await plane.predict(request(request_id="id-77"))
    assert "id-77" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    plane.models["m@1"].answer = lambda inputs: {"label": numbers(1.0), "score": numbers(1.0)}
    with pytest.raises(ModelFault, match="datatype must be INT64, got FP64"):
        await plane.predict(request())
    plane.models["m@1"].answer = lambda inputs: scored({"x": numbers(1.0, 2.0)})
    with pytest.raises(ModelFault, match="2 rows answered for 1 asked"):
        await plane.predict(request())
    plane.models["m@1"].answer = raising(asyncio.CancelledError())
    with pytest.raises(ModelFault, match="the model cancelled the call"):
        await plane.predict(request())
    assert plane.count("turnout_requests_total", outcome="fault", version="1") == 4


async def test_expired_work_is_never_started(plane):
    """Whichever way a call comes, and whatever it waited for before: past its deadline the model does not see it."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    served = plane.pool.get("m@1")
    before = len(model.calls)
    late = Call("id-1", Deadline(monotonic_s() - 1))
    with pytest.raises(DeadlineExceeded):
        served.predict_now({"x": numbers(1.0)}, served.engine.outputs, late, 1)
    with pytest.raises(DeadlineExceeded):
        await served.predict({"x": numbers(1.0)}, served.engine.outputs, late, 1)
    assert len(model.calls) == before
    assert served._admission.running == 0


async def test_callers_faults_pass_through_the_model(plane):
    """A model may say that the input is wrong; that is the caller's fault, not the version's."""
    await plane.serve({"m@1": FakeModel(raising(InvalidInput("tensor 'x': row 0 is dropped")))}, route("m", "m@1"))
    with pytest.raises(InvalidInput, match="row 0"):
        await plane.predict(request())


async def test_late_model_frees_its_place(plane):
    """When the deadline passes the caller is told in time and the version takes the next call."""
    gate = Gate()
    model = FakeModel(gate)
    limits = VersionLimits(in_flight=1, queue_rows=0)
    plane.models["m@1"] = FakeModel()
    await plane.follow([entry("m@1", limits=limits)], [route("m", "m@1")])
    plane.replace_model("m@1", model)
    with pytest.raises(DeadlineExceeded):
        await plane.predict(request(deadline=Deadline.after(0.01)))
    assert gate.waiting == 0
    gate.event.set()
    await plane.predict(request())
    assert plane.count("turnout_requests_total", outcome="deadline") == 1


async def test_expired_work_never_starts(plane):
    """A request whose deadline has passed does not reach the model."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    before = len(model.calls)
    with pytest.raises(DeadlineExceeded):
        await plane.predict(request(deadline=Deadline.after(-1)))
    assert len(model.calls) == before


async def test_bounds_shed_and_queue(plane):
    """Beyond `in_flight` requests wait, beyond `queue_rows` they are shed; a caller that leaves gives its place up."""
    gate = Gate()
    plane.models["m@1"] = FakeModel()
    await plane.follow([entry("m@1", limits=VersionLimits(in_flight=1, queue_rows=3))], [route("m", "m@1")])
    plane.replace_model("m@1", FakeModel(gate))
    first = asyncio.create_task(plane.predict(request()))
    waiting = asyncio.create_task(plane.predict(request([1.0, 2.0])))
    await eventually_async(lambda: plane.count("turnout_queue_rows", version="1") == 2)
    with pytest.raises(Overloaded):
        await plane.predict(request([1.0, 2.0]))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.event.set()
    assert (await waiting).outputs["score"].rows == 2
    assert plane.count("turnout_queue_rows", version="1") == 0
    assert plane.count("turnout_requests_total", outcome="cancelled") == 1
    assert plane.count("turnout_requests_total", outcome="overloaded") == 1
    assert plane.count("turnout_in_flight") == 0
    assert plane.count("turnout_statistics_seconds_total", part="queue") > 0


async def test_lost_worker_comes_back_through_the_golden_file(plane):
    """A lost version is out of rotation at once, and ready again only once its fresh worker agrees with the file."""
    model = WatchedFake()
    await plane.serve({"m@1": model}, route("m", "m@1"), entries=[entry("m@1", golden=golden(plane.folder))])
    model.lost("killed by signal 9", 32)
    with pytest.raises(NotReady):
        await plane.predict(request())
    await eventually_async(lambda: plane.states() == {"m@1": "lost"})
    assert plane.report.versions["m@1"].crashed_calls == 32
    assert plane.report.versions["m@1"].reason == "killed by signal 9"
    before = len(model.calls)
    model.back()
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})
    assert len(model.calls) == before + 1
    assert plane.report.versions["m@1"].reason == ""
    await plane.predict(request())


async def test_worker_that_comes_back_wrong_fails(plane):
    """A fresh worker that disagrees with the golden file never serves."""
    model = WatchedFake()
    await plane.serve({"m@1": model}, route("m", "m@1"), entries=[entry("m@1", golden=golden(plane.folder))])
    model.lost("gone", 0)
    model.answer = lambda inputs: {name: Tensor.of(t.array * 0) for name, t in scored(inputs).items()}
    model.back()
    await eventually_async(lambda: plane.states() == {"m@1": "failed"})
    assert plane.report.versions["m@1"].reason.startswith("golden: output 'label' row 0")
    await eventually_async(lambda: model.closed == 1)


async def test_worker_lost_again_during_rehearsal(plane):
    """A worker that dies while it is rehearsed is lost again, and the next one gets its turn."""
    model = WatchedFake()
    await plane.serve({"m@1": model}, route("m", "m@1"), entries=[entry("m@1", golden=golden(plane.folder))])
    model.lost("first", 1)
    await eventually_async(lambda: plane.report.versions["m@1"].crashed_calls == 1)
    model.answer = raising(WorkerLost("gone"))
    model.back()
    # The parent sees two losses and not one that lasts, or a golden file that kills each worker would go on for ever.
    await eventually_async(lambda: plane.report.versions["m@1"].crashed_calls == 0)
    assert plane.states() == {"m@1": "lost"}
    model.lost("second", 2)
    await eventually_async(lambda: plane.report.versions["m@1"].reason == "second")
    assert plane.report.versions["m@1"].crashed_calls == 2
    model.answer = scored
    model.back()
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})


async def test_worker_lost_during_the_load(plane):
    """A worker that dies while its version warms up is lost, not failed: its successor makes the version ready."""
    model = WatchedFake()

    def dies(inputs):
        model.lost("died young", 1)
        raise WorkerLost("gone")

    model.answer = dies
    plane.models["m@1"] = model
    await plane.follow([entry("m@1", golden=golden(plane.folder))], [route("m", "m@1")])
    assert plane.states() == {"m@1": "lost"}
    model.answer = scored
    model.back()
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})


async def test_quarantined_version_fails(plane):
    """A version whose worker will not come back fails for the parent's reason and is closed."""
    model = WatchedFake()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    model.lost("gone", 3)
    plane.pool.fail("m@1", Failure("quarantined: 3 losses", quarantined=True))
    await eventually_async(lambda: model.closed == 1)
    assert plane.states() == {"m@1": "failed"}
    model.back()
    report = plane.report.versions["m@1"]
    assert (report.reason, report.quarantined) == ("quarantined: 3 losses", True)


async def test_warm_up_without_golden_file_uses_zeros(plane):
    """Without examples a model is warmed on zeros; one that refuses them is served all the same."""
    kind, unkind = FakeModel(), FakeModel(raising(ValueError("zero")))
    await plane.serve({"m@1": kind, "n@1": unkind})
    assert kind.calls[0][0]["x"].array.tolist() == [0.0]
    assert plane.states() == {"m@1": "ready", "n@1": "ready"}
    assert len(unkind.calls) == 1


async def test_text_inputs_are_not_warmed_on_made_up_values(plane):
    """A model that takes text gets no invented rows."""
    model = FakeModel(signature=Signature((TensorSpec("s", Datatype.BYTES, (-1,)),), SIGNATURE.outputs))
    await plane.serve({"m@1": model}, entries=[entry("m@1", runtime=Runtime.JVM)])
    assert model.calls == []
    assert plane.states() == {"m@1": "ready"}


async def test_model_that_cannot_close_is_let_go(plane, caplog):
    """A model whose close raises holds nothing up."""

    class Stubborn(FakeModel):
        async def close(self):
            raise RuntimeError("never")

    await plane.serve({"m@1": Stubborn()})
    await plane.follow([], [])
    await eventually_async(lambda: not list(plane.pool.leaving()))
    assert "m@1 did not close" in caplog.text
