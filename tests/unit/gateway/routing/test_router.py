"""Requests through the router: who answers, what is counted, what rescues."""

import asyncio

import numpy as np
import pytest

from gateway.observe import statistics
from tests.fakes import SIGNATURE, FakeModel, Gate, Plane, Writer, entry, raising, request, route
from tests.waiting import eventually_async
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    ModelFault,
    NotFound,
    NotReady,
    TooLarge,
    WorkerLost,
)
from turnout.core.ids import VersionRef
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import BUCKETS, Fallback, Match, Sticky
from turnout.core.tensor import Datatype, Tensor

HALF = {"m@1": BUCKETS // 2, "m@2": BUCKETS // 2}
VALUE = Fallback("value", {"label": 0, "score": 0.5})


def constant(score):
    """Return a model that always answers this score."""

    def answer(inputs):
        rows = inputs["x"].rows
        return {"label": Tensor.of(np.zeros(rows, np.int64)), "score": Tensor.of(np.full(rows, float(score)))}

    return FakeModel(answer)


async def ask(plane, **fields):
    """Send a request; return the number of the version that answered."""
    return (await plane.predict(request(**fields))).version.number


async def test_answer_names_its_version(plane):
    """An answer carries who gave it and the routes' generation; so does the request, for errors."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    sent = request()
    prediction = await plane.predict(sent)
    assert prediction.version == VersionRef("m", 1)
    assert (prediction.generation, prediction.fallback) == (1, None)
    assert (sent.picked, sent.generation) == (VersionRef("m", 1), 1)


async def test_arms_are_counted_apart(plane):
    """Champion, canary, matched and pinned requests count under the version that was picked, each once."""
    match = Match({"x-cohort": "beta"}, "m@1")
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1", HALF, matches=(match,)))
    for _ in range(40):
        await ask(plane)
    assert await ask(plane, headers={"x-cohort": "beta"}) == 1
    assert await ask(plane, version=2) == 2
    arms = {arm: plane.count("turnout_requests_total", arm=arm) for arm in ("champion", "canary", "matched", "pinned")}
    assert arms["champion"] + arms["canary"] == 40
    assert min(arms["champion"], arms["canary"]) > 5
    assert (arms["matched"], arms["pinned"]) == (1, 1)
    assert plane.count("turnout_requests_total", arm="champion", version="2") == 0
    assert plane.count("turnout_requests_total", arm="canary", version="1") == 0
    assert plane.count("turnout_request_duration_seconds_count") == 42
    assert plane.count("turnout_overhead_seconds_count", route="m") == 42


async def test_matched_and_pinned_are_no_evidence(plane):
    """What matched and pinned requests predicted is not counted among the version's predictions."""
    match = Match({"x-cohort": "beta"}, "m@1")
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1", matches=(match,)))
    await ask(plane, x=[1.0, 1.0, -1.0])
    await ask(plane, headers={"x-cohort": "beta"})
    await ask(plane, version=1)
    labels = {"model": "m", "version": "1", "output": "label"}
    assert plane.count("turnout_predicted_class_total", **labels, **{"class": "1"}) == 2
    assert plane.count("turnout_predicted_class_total", **labels, **{"class": "0"}) == 1
    assert plane.count("turnout_predicted_value_count", output="score") == 3
    assert plane.count("turnout_predict_duration_seconds_count") == 3
    assert plane.count("turnout_batch_rows_sum") == 5


async def test_sticky_requests_stay(plane):
    """The same key gets the same version; without a key each request is drawn alone."""
    sticky = Sticky("m", header="x-user")
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1", HALF, sticky=sticky))
    by_key = {key: await ask(plane, headers={"x-user": key}) for key in map(str, range(50))}
    assert {await ask(plane, headers={"x-user": key}) == number for key, number in by_key.items()} == {True}
    assert set(by_key.values()) == {1, 2}
    assert {await ask(plane, headers={"x-user": ""}) for _ in range(40)} == {1, 2}


async def test_seed_makes_draws_repeatable(plane, tmp_path, monkeypatch):
    """Two routers with one seed draw alike."""
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1", HALF))
    drawn = [await ask(plane) for _ in range(30)]
    (tmp_path / "other").mkdir()
    other = Plane(tmp_path / "other", monkeypatch, seed=1)
    await other.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1", HALF))
    assert [await ask(other) for _ in range(30)] == drawn
    await other.close()


async def test_unknown_names(plane):
    """Unknown routes and versions are not found; metrics name neither what they were called nor any version."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), catalogue=("m@7",))
    with pytest.raises(NotFound, match="Request for unknown model: 'nope' is not found"):
        await ask(plane, name="nope")
    with pytest.raises(NotFound, match="Request for unknown model: 'nope' is not found"):
        await ask(plane, name="nope", version=1)
    with pytest.raises(NotFound, match="'m' version 3 is not found"):
        await ask(plane, version=3)
    with pytest.raises(NotFound, match="'m' version 7 is not loaded"):
        await ask(plane, version=7)
    none = {"model": "", "version": "", "arm": "none", "outcome": "not_found"}
    assert plane.count("turnout_requests_total", route="", **none) == 2
    assert plane.count("turnout_requests_total", route="m", **none) == 2


async def test_no_name_is_unknown_before_the_first_routes(plane):
    """While a start only holds versions every name is not ready, which clients try again; what is loaded answers."""
    await plane.serve({"m@1": FakeModel()}, catalogue=("m@7",), routes_generation=0)
    for unknown in ({}, {"name": "nope"}, {"name": "nope", "version": 1}, {"version": 3}, {"version": 7}):
        with pytest.raises(NotReady, match="no routes are in force yet"):
            await ask(plane, **unknown)
    assert plane.count("turnout_requests_total", route="", outcome="unavailable") == 5
    assert await ask(plane, version=1) == 1
    await plane.follow([entry("m@1")], [route("m", "m@1")])
    assert await ask(plane) == 1
    with pytest.raises(NotFound):
        await ask(plane, name="nope")


async def test_names_are_unknown_where_there_are_no_routes(plane):
    """Routes that were published and are none, as of an empty folder, leave every name unknown."""
    await plane.serve({}, entries=[])
    with pytest.raises(NotFound):
        await ask(plane)


async def test_no_snapshot_yet(plane):
    """Before the first snapshot nothing is unknown: the server is not ready."""
    with pytest.raises(NotReady, match="no snapshot yet"):
        await ask(plane)


async def test_route_without_a_model_of_its_name(plane):
    """Version V of a route that is no model is version V of its champion's model."""
    models = {"a@1": FakeModel(), "a@2": FakeModel(), "b@2": FakeModel()}
    await plane.serve(models, route("r", "a@1", {"a@1": 9999, "b@2": 1}), route("b", "b@2"))
    assert (await plane.predict(request(name="r", version=2))).version == VersionRef("a", 2)
    assert (await plane.predict(request(name="b", version=2))).version == VersionRef("b", 2)
    assert (await plane.predict(request(name="a", version=2))).version == VersionRef("a", 2)
    assert plane.count("turnout_requests_total", route="", model="a", arm="pinned") == 1
    with pytest.raises(NotFound):
        await ask(plane, name="a")


async def test_deadline_is_the_earliest(plane):
    """A request ends with the caller's deadline or the route's, whichever is first."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1", deadline_ms=50))
    model.answer = Gate()
    began_s = monotonic_s()
    with pytest.raises(DeadlineExceeded):
        await ask(plane, deadline=Deadline.after(60))
    with pytest.raises(DeadlineExceeded):
        await ask(plane, deadline=Deadline.after(0.01))
    assert monotonic_s() - began_s < 10
    assert model.answer.waiting == 0
    assert plane.count("turnout_requests_total", outcome="deadline") == 2


async def test_caller_that_left_frees_everything(plane):
    """A cancelled call is cancelled down to the model, counted once, and not in flight any more."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1", fallback=(VALUE,)))
    model.answer = Gate()
    task = asyncio.create_task(ask(plane))
    await eventually_async(lambda: model.answer.waiting)
    assert plane.count("turnout_in_flight", route="m") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.answer.waiting == 0
    assert plane.count("turnout_requests_total", outcome="cancelled") == 1
    assert plane.count("turnout_in_flight", route="m") == 0


async def test_trace_goes_through(plane):
    """The model's call carries the request's id and a child of its trace."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    trace = "0af7651916cd43dd8448eb211c80319c"
    await ask(plane, request_id="id-9", traceparent=f"00-{trace}-b7ad6b7169203331-01")
    context = model.calls[-1][2]
    assert context.request_id == "id-9"
    assert context.traceparent.split("-")[1] == trace
    assert context.traceparent.split("-")[2] != "b7ad6b7169203331"


async def test_fallbacks_rescue_in_order(plane):
    """A failed version's request is answered by the next that can, marked, and counted apart."""
    weights = {"m@2": 0, "m@3": BUCKETS}
    models = {"m@1": constant(1), "m@2": constant(2), "m@3": FakeModel(raising(ValueError("broken")))}
    fallback = (Fallback("champion"), Fallback("previous"), VALUE)
    await plane.serve(models, route("m", "m@2", weights, previous="m@1", fallback=fallback))
    sent = request()
    prediction = await plane.predict(sent)
    assert (prediction.version, prediction.fallback) == (VersionRef("m", 2), "champion")
    assert prediction.outputs["score"].array.tolist() == [2.0]
    assert sent.picked == VersionRef("m", 3)
    plane.models["m@2"].answer = raising(WorkerLost("gone"))
    assert (await plane.predict(request())).fallback == "previous"
    plane.models["m@1"].answer = raising(ModelFault("wrong"))
    prediction = await plane.predict(request([1.0, 2.0]))
    assert (prediction.version, prediction.fallback) == (None, "value")
    assert prediction.outputs["label"].array.tolist() == [0, 0]
    assert prediction.outputs["score"].array.tolist() == [0.5, 0.5]
    assert plane.count("turnout_requests_total", version="3", outcome="fault", arm="canary") == 3
    assert plane.count("turnout_requests_total") == 3
    rescues = {"route": "m", "from_version": "m@3", "reason": "fault"}
    assert plane.count("turnout_fallbacks_total", **rescues, to="champion", outcome="ok") == 1
    assert plane.count("turnout_fallbacks_total", **rescues, to="champion", outcome="unavailable") == 2
    assert plane.count("turnout_fallbacks_total", **rescues, to="previous", outcome="ok") == 1
    assert plane.count("turnout_fallbacks_total", **rescues, to="previous", outcome="fault") == 1
    assert plane.count("turnout_fallbacks_total", **rescues, to="value", outcome="ok") == 1
    assert plane.count("turnout_predicted_value_count") == 0


async def test_rescue_by_itself_is_not_tried(plane):
    """A champion that failed is not asked again as its own fallback; without any other the failure stands."""
    model = FakeModel(raising(ValueError("broken")))
    await plane.serve({"m@1": model}, route("m", "m@1", fallback=(Fallback("champion"), Fallback("previous"))))
    before = len(model.calls)
    with pytest.raises(ModelFault):
        await ask(plane)
    assert len(model.calls) == before + 1
    assert plane.count("turnout_fallbacks_total") == 0


@pytest.mark.parametrize(
    ("error", "rescued"),
    [
        (InvalidInput("bad"), False),
        (ModelFault("x"), True),
        (WorkerLost("x"), True),
        (DeadlineExceeded("x"), True),
        (KeyError("x"), True),
    ],
)
async def test_only_our_failures_are_rescued(plane, error, rescued):
    """A caller's own mistake stays one; what the gateway or the model failed at is rescued."""
    await plane.serve({"m@1": FakeModel(raising(error))}, route("m", "m@1", fallback=(VALUE,)))
    if rescued:
        assert (await plane.predict(request())).fallback == "value"
    else:
        with pytest.raises(InvalidInput):
            await plane.predict(request())


async def test_pinned_requests_are_not_rescued(plane):
    """Who asked for one version gets its failure, never another's answer."""
    await plane.serve({"m@1": FakeModel(raising(ValueError("x")))}, route("m", "m@1", fallback=(VALUE,)))
    with pytest.raises(ModelFault):
        await ask(plane, version=1)
    assert plane.count("turnout_fallbacks_total") == 0


async def test_late_answer_is_rescued_by_the_constant(plane):
    """At the deadline versions are not asked any more, but the constant costs no time."""
    model = FakeModel()
    fallback = (Fallback("previous"), VALUE)
    await plane.serve({"m@1": model, "m@2": FakeModel()}, route("m", "m@1", previous="m@2", fallback=fallback))
    model.answer = Gate()
    assert (await plane.predict(request(deadline=Deadline.after(0.01)))).fallback == "value"
    assert plane.count("turnout_fallbacks_total", to="previous", outcome="deadline") == 1


async def test_constant_answers_for_versions_that_never_loaded(plane):
    """The constant works without any version; one that its output cannot hold is left out with a word in the log."""
    fallback = (VALUE,)
    await plane.follow([entry("m@1")], [route("m", "m@1", fallback=fallback)])
    prediction = await plane.predict(request([1.0, 2.0], outputs=("label",)))
    assert prediction.outputs["label"].array.tolist() == [0, 0]
    assert list(prediction.outputs) == ["label"]
    with pytest.raises(NotReady):
        await plane.predict(request(outputs=("other",)))
    assert plane.count("turnout_fallbacks_total", to="value", reason="unavailable", outcome="invalid") == 1


async def test_constant_takes_its_outputs_datatype_and_shape(plane, caplog):
    """Declared values become tensors of the route's outputs, one element a row; one that does not fit is refused."""
    outputs = (TensorSpec("label", Datatype.BYTES, (-1,)), TensorSpec("p", Datatype.FP32, (-1, 2)))
    broken = FakeModel(raising(ValueError("x")), Signature(SIGNATURE.inputs, outputs))
    fallback = (Fallback("value", {"label": 7}), Fallback("value", {"label": "none", "p": [0.5, 0.5]}))
    await plane.serve({"m@1": broken}, route("m", "m@1", fallback=fallback))
    prediction = await plane.predict(request([1.0, 2.0, 3.0]))
    assert prediction.outputs["label"].array.tolist() == [b"none"] * 3
    assert (prediction.outputs["p"].datatype, prediction.outputs["p"].shape) == (Datatype.FP32, (3, 2))
    assert "route m: fallback value cannot be used" in caplog.text


async def test_answer_that_cannot_be_written_is_no_success(plane):
    """What the door cannot encode counts as the fault it is, and the route's fallback is encoded instead."""
    written = []

    def encode(prediction):
        if not np.isfinite(prediction.outputs["score"].array).all():
            raise ModelFault("output 'score': NaN")
        written.append(prediction.outputs["score"].array.tolist())

    await plane.serve({"m@1": constant(float("nan"))}, route("m", "m@1", fallback=(VALUE,)), route("n", "m@1"))
    assert (await plane.predict(request(writer=Writer(encode)))).fallback == "value"
    assert written == [[0.5]]
    with pytest.raises(ModelFault):
        await plane.predict(request(name="n", writer=Writer(encode)))
    assert plane.count("turnout_requests_total", outcome="fault") == 2
    assert plane.count("turnout_requests_total", outcome="ok") == 0
    assert plane.count("turnout_predicted_value_count") == 0


async def test_unforeseen_faults_are_internal(plane, caplog):
    """A fault of the gateway itself is Internal, counted as a fault, with its cause in the log only."""

    def encode(prediction):
        raise LookupError("secret")

    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    with pytest.raises(Internal) as failed:
        await plane.predict(request(writer=Writer(encode), request_id="id-5"))
    assert "secret" not in failed.value.message
    assert "id-5" in caplog.text
    assert "LookupError" in caplog.text
    assert plane.count("turnout_requests_total", outcome="fault") == 1


async def test_refusals_of_doors_are_counted(plane):
    """What a door refused counts once, under its route only where that exists."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    for name in ("m", "nope", "x" * 500):
        plane.backend.refused(name, "grpc", TooLarge("too large"), "id-1", monotonic_s())
    labels = {"protocol": "grpc", "outcome": "too_large", "arm": "none", "model": "", "version": ""}
    assert plane.count("turnout_requests_total", route="m", **labels) == 1
    assert plane.count("turnout_requests_total", route="", **labels) == 2


async def test_statistics_parts_add_up(plane):
    """Time of requests is summed by success and failure for the statistics."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    await ask(plane)
    model.answer = raising(ValueError("x"))
    with pytest.raises(ModelFault):
        await ask(plane)
    counted = statistics.read(plane.directory)["m", "1"]
    assert counted.success_s > 0
    assert counted.fail_s > 0
    assert plane.count("turnout_batch_rows_count") == 1
    assert plane.count("turnout_predict_duration_seconds_count") == 2
    assert plane.count("turnout_last_answer_timestamp_seconds") > 1.6e9
