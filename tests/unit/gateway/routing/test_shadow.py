"""Shadows: copies behind the answer, verdicts on each row, at nobody's cost."""

import asyncio

import numpy as np
import pytest

from gateway.routing import shadow
from gateway.routing.shadow import QUEUE_COPIES, Budget
from tests.fakes import SIGNATURE, FakeModel, Gate, entry, numbers, raising, request, route, scored, texts
from tests.waiting import eventually_async
from turnout.core.manifest import Runtime
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import BUCKETS, Comparison, Match, Shadow
from turnout.core.tensor import Datatype, Tensor

SHADOW = (Shadow("m@2"),)


async def serve(plane, model, *, shadow=SHADOW, weights=None, **fields):
    """Serve m@1 with m@2 as its shadow."""
    await plane.serve({"m@1": FakeModel(), "m@2": model}, route("m", "m@1", weights, shadows=shadow, **fields))


def rows(plane, verdict):
    """Return the rows that got a verdict."""
    return plane.count("turnout_shadow_comparisons_total", route="m", version="m@2", verdict=verdict)


async def test_verdicts_are_counted_by_row(plane):
    """Rows that differ from the champion's are counted as such, the others agree."""

    def wrong_on_negatives(inputs):
        answer = scored(inputs)
        return {**answer, "label": Tensor.of(np.ones(inputs["x"].rows, np.int64))}

    await serve(plane, FakeModel(wrong_on_negatives))
    for _ in range(10):
        await plane.predict(request([1.0, -1.0, 2.0]))
    await eventually_async(lambda: rows(plane, "agree") == 20)
    assert rows(plane, "disagree") == 10
    assert plane.count("turnout_shadow_requests_total", route="m", version="m@2", outcome="ok") == 10
    assert plane.count("turnout_predict_duration_seconds_count", version="2") == 10
    assert plane.count("turnout_predicted_class_total", version="2", **{"class": "1"}) == 30
    assert plane.count("turnout_requests_total", version="2") == 0
    assert plane.count("turnout_dropped_total", what="shadow") == 0


@pytest.mark.parametrize(("answer", "outcome"), [(raising(ValueError("x")), "fault")])
async def test_failing_shadow_is_an_error_for_its_rows(plane, answer, outcome):
    """A shadow that fails is counted and reaches nobody's request."""
    await serve(plane, FakeModel(answer))
    await plane.predict(request([1.0, 2.0]))
    await eventually_async(lambda: rows(plane, "error") == 2)
    assert plane.count("turnout_shadow_requests_total", outcome=outcome) == 1
    assert plane.count("turnout_requests_total", outcome="ok") == 1


async def test_shadow_that_is_not_ready_is_an_error(plane):
    """Copies for a version that failed to load count as errors, so that its silence shows."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1", shadows=SHADOW), entries=[entry("m@1"), entry("m@2")])
    await plane.predict(request())
    await eventually_async(lambda: rows(plane, "error") == 1)
    assert plane.count("turnout_shadow_requests_total", outcome="unavailable") == 1


async def test_other_outputs_are_incomparable(plane):
    """An answer of another shape or datatype is neither agreement nor its opposite."""
    other = Signature(SIGNATURE.inputs, (SIGNATURE.outputs[0], TensorSpec("score", Datatype.FP32, (-1,))))

    def narrow(inputs):
        return {**scored(inputs), "score": Tensor.of(inputs["x"].array.astype(np.float32))}

    await serve(plane, FakeModel(narrow, other))
    await plane.predict(request([1.0, 2.0]))
    await eventually_async(lambda: rows(plane, "incomparable") == 2)


async def test_only_what_the_champion_answered_is_copied(plane):
    """Canary, matched and pinned requests, failures and empty ones are not copied."""
    model = FakeModel()
    canary = {"m@1": 0, "m@3": BUCKETS}
    match = Match({"x-cohort": "beta"}, "m@1")
    models = {"m@1": FakeModel(), "m@2": model, "m@3": FakeModel()}
    await plane.serve(models, route("m", "m@1", canary, shadows=SHADOW, matches=(match,)))
    before = len(model.calls)
    await plane.predict(request())
    await plane.predict(request(headers={"x-cohort": "beta"}))
    await plane.predict(request(version=1))
    entries = [entry(version) for version in models]
    await plane.follow(entries, [route("m", "m@1", shadows=SHADOW)])
    await plane.predict(request([]))
    await plane.predict(request(request_id="last"))
    await eventually_async(lambda: "last" in [context.request_id for _, _, context in model.calls])
    assert len(model.calls) == before + 1


async def test_sample_is_repeatable(plane):
    """Which requests are copied follows from their ids alone."""
    model = FakeModel()
    await serve(plane, model, shadow=(Shadow("m@2", sample=5_000),))
    warmed, copied = len(model.calls), []
    for _ in range(2):
        before = len(model.calls)
        for index in range(60):
            await plane.predict(request(request_id=f"id-{index}"))
        await eventually_async(lambda: not plane.router._shadows._queues["m@2"]._copies)
        await eventually_async(lambda: plane.count("turnout_shadow_requests_total") == len(model.calls) - warmed)
        copied.append([context.request_id for _, _, context in model.calls[before:]])
    assert copied[0] == copied[1]
    assert 15 < len(copied[0]) < 45


async def test_asked_outputs_are_compared(plane):
    """Of a request that wanted one output, that one is asked of the shadow and compared, by the route's policy."""
    model = FakeModel(lambda inputs: {"label": Tensor.of(np.array([9])), "score": numbers(1.4)})
    await serve(plane, model, shadow=(Shadow("m@2", compare={"score": Comparison("numeric", abs=0.5)}),))
    await plane.predict(request([1.0], outputs=("score",)))
    await eventually_async(lambda: rows(plane, "agree") == 1)
    assert model.calls[-1][1] == ("score",)


async def test_shadow_takes_its_subset(plane):
    """A shadow with fewer inputs gets those; one that takes no missing strings errs on them."""
    text = TensorSpec("s", Datatype.BYTES, (-1,), nullable=True)
    champion = FakeModel(signature=Signature((*SIGNATURE.inputs, text), SIGNATURE.outputs))
    strict = TensorSpec("s", Datatype.BYTES, (-1,))
    models = {
        "m@1": champion,
        "m@2": FakeModel(),
        "m@3": FakeModel(signature=Signature((*SIGNATURE.inputs, strict), SIGNATURE.outputs)),
    }
    await plane.serve(models, route("m", "m@1", shadows=(Shadow("m@2"), Shadow("m@3"))))
    await plane.predict(request(inputs={"x": numbers(1.0), "s": texts(None)}))
    await eventually_async(lambda: rows(plane, "agree") == 1)
    await eventually_async(lambda: plane.count("turnout_shadow_requests_total", version="m@3", outcome="invalid") == 1)


async def test_hung_shadow_costs_the_champion_nothing(plane):
    """Behind a shadow that hangs copies wait up to the bound, more are dropped, and every request is answered."""
    model = FakeModel()
    await serve(plane, model)
    model.answer = Gate()
    for _ in range(QUEUE_COPIES + 51):
        await plane.predict(request())
        await asyncio.sleep(0)
    assert model.answer.waiting == 1
    assert plane.count("turnout_requests_total", outcome="ok") == QUEUE_COPIES + 51
    assert plane.count("turnout_dropped_total", what="shadow") == 50


async def test_copies_are_the_first_to_go(plane):
    """While callers are shed no copy is taken and none that waits is run; each is counted."""
    model = FakeModel()
    await serve(plane, model)
    gate = model.answer = Gate()
    for _ in range(3):
        await plane.predict(request())
    await eventually_async(lambda: gate.waiting == 1)
    plane.backend.pressure.note_shed()
    await plane.predict(request())
    assert plane.count("turnout_dropped_total", what="shadow") == 1
    gate.event.set()
    await eventually_async(lambda: plane.count("turnout_dropped_total", what="shadow") == 3)
    assert plane.count("turnout_shadow_requests_total") == 1


async def test_waiting_copies_are_bounded_in_bytes(plane, monkeypatch):
    """Large requests wait in smaller number, text counted by its length."""
    monkeypatch.setattr(shadow, "QUEUE_BYTES", 10_000)
    model = FakeModel()
    await serve(plane, model)
    model.answer = Gate()
    for _ in range(10):
        await plane.predict(request([1.0] * 100))
    dropped = plane.count("turnout_dropped_total", what="shadow")
    assert 0 < dropped < 10
    assert texts("x" * 1000, None).nbytes >= 1000


async def test_lanes_follow_the_table(plane):
    """A version that is a shadow no more drops what waited for it; its copy under way ends, and is counted as that."""
    model = FakeModel()
    await serve(plane, model)
    model.answer = Gate()
    for _ in range(5):
        await plane.predict(request())
        await asyncio.sleep(0)
    await eventually_async(lambda: model.answer.waiting == 1)
    await plane.follow([entry("m@1"), entry("m@2")], [route("m", "m@1")])
    await eventually_async(lambda: model.answer.waiting == 0)
    assert plane.count("turnout_dropped_total", what="shadow") == 4
    await eventually_async(lambda: plane.count("turnout_shadow_requests_total", outcome="cancelled") == 1)
    assert rows(plane, "error") == 0
    await plane.predict(request())


async def test_budget_is_a_share_of_time(monkeypatch):
    """What is spent is earned back at the share; what is unused is saved for a second only."""
    now = 100.0
    monkeypatch.setattr(shadow, "monotonic_s", lambda: now)
    budget = Budget(0.1)
    now = 200.0
    assert budget.debt_s() == 0
    budget.spend(0.1)
    assert budget.debt_s() == 0
    budget.spend(0.05)
    assert budget.debt_s() == pytest.approx(0.5)
    now = 200.5
    assert budget.debt_s() == pytest.approx(0, abs=1e-9)


async def test_shadows_keep_to_their_share(plane, monkeypatch):
    """A shadow whose copies take long is asked more rarely, and what piles up is dropped."""
    spent = []
    monkeypatch.setattr(Budget, "spend", lambda self, seconds: spent.append(seconds))
    monkeypatch.setattr(Budget, "debt_s", lambda self: 0.0 if len(spent) < 3 else 60.0)
    model = FakeModel()
    await serve(plane, model)
    before = len(model.calls)
    for _ in range(QUEUE_COPIES + 20):
        await plane.predict(request())
        await asyncio.sleep(0)
    await eventually_async(lambda: len(model.calls) == before + 3)
    assert all(seconds > 0 for seconds in spent)
    assert plane.count("turnout_dropped_total", what="shadow") == 17


@pytest.mark.parametrize(("runtime", "charged"), [(Runtime.ONNX, True), (Runtime.JVM, False)])
async def test_waiting_for_a_worker_is_not_process_time(plane, monkeypatch, runtime, charged):
    """A copy that waits for another process is charged only the loop time that it holds."""
    spent = []
    monkeypatch.setattr(Budget, "spend", lambda self, seconds: spent.append(seconds))
    model = FakeModel()
    plane.models.update({"m@1": FakeModel(), "m@2": model})
    await plane.follow([entry("m@1"), entry("m@2", runtime=runtime)], [route("m", "m@1", shadows=SHADOW)])

    async def slow(inputs):
        await asyncio.sleep(0.2)
        return scored(inputs)

    model.answer = slow
    await plane.predict(request())
    await eventually_async(lambda: spent)
    assert (spent[0] > 0.15) is charged
