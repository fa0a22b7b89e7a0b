"""What a route takes, and what each of its versions gets of it."""

import pytest

from gateway.routing.target import Interface, interface, own, whole
from tests.fakes import FakeModel, entry, numbers, request, route, scored, texts
from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import BUCKETS, Match
from turnout.core.tensor import Datatype

OUTPUTS = (TensorSpec("label", Datatype.INT64, (-1,)), TensorSpec("score", Datatype.FP64, (-1,)))
X = TensorSpec("x", Datatype.FP64, (-1,))
TEXT = TensorSpec("text", Datatype.BYTES, (-1,))
MAYBE = TensorSpec("text", Datatype.BYTES, (-1,), nullable=True)


def test_interface_is_the_champions_or_declared():
    """A route takes what its champion takes, unless it declares its own inputs."""
    champion = Signature((X,), OUTPUTS, ("target",))
    assert interface(None, champion, [champion]) == Interface((X,), ("target",), frozenset())
    assert interface((X, TEXT), champion, [champion]).inputs == (X, TEXT)
    assert interface(None, None, []) == Interface()


def test_one_version_without_missing_strings_refuses_them_for_all():
    """A weighted version that takes no missing strings makes the whole route refuse them."""
    champion, canary = Signature((X, MAYBE), OUTPUTS), Signature((X, TEXT), OUTPUTS)
    route = interface(None, champion, [champion, canary])
    assert route.no_missing == {"text"}
    assert whole(champion, route).inputs == (X, TEXT)
    assert own(champion, route).inputs == (X, TEXT)
    assert whole(champion, interface(None, champion, [champion])).inputs == (X, MAYBE)


def test_split_checks_the_routes_inputs_whatever_the_draw():
    """A version of the split is sent all that the route takes; one that is picked for sure only what it takes."""
    route = Interface((X, TEXT))
    small = Signature((X,), OUTPUTS)
    assert whole(small, route).inputs == (X, TEXT)
    assert own(small, route).inputs == (X,)


async def test_subset_inputs_are_dropped(plane):
    """A version that takes a subset gets that subset; the route's callers are checked alike whoever answers."""
    full = FakeModel(signature=Signature((X, TEXT), OUTPUTS))
    part = FakeModel(signature=Signature((X,), OUTPUTS))
    weights = {"m@2": BUCKETS // 2, "m@1": BUCKETS // 2}
    await plane.serve({"m@2": full, "m@1": part}, route("m", "m@2", weights))
    for _ in range(20):
        await plane.predict(request(inputs={"x": numbers(1.0), "text": texts("a")}))
        with pytest.raises(InvalidInput, match="tensor 'text': missing"):
            await plane.predict(request(inputs={"x": numbers(1.0)}))
        with pytest.raises(InvalidInput, match="tensor 'text': datatype must be BYTES"):
            await plane.predict(request(inputs={"x": numbers(1.0), "text": numbers(1.0)}))
        with pytest.raises(InvalidInput, match="tensor 'y': unknown"):
            await plane.predict(request(inputs={"x": numbers(1.0), "text": texts("a"), "y": numbers(1.0)}))
    assert {tuple(inputs) for inputs, _, _ in part.calls} == {("x",)}
    assert {tuple(inputs) for inputs, _, _ in full.calls} == {("x", "text")}


async def test_matched_and_pinned_versions_take_their_own_inputs(plane):
    """Who gets a version for sure need not send what it does not take, and may."""
    full = FakeModel(signature=Signature((X, TEXT), OUTPUTS))
    part = FakeModel(signature=Signature((X,), OUTPUTS))
    match = Match({"x-cohort": "old"}, "m@1")
    await plane.serve({"m@2": full, "m@1": part}, route("m", "m@2", matches=(match,)))
    both = {"x": numbers(1.0), "text": texts("a")}
    for inputs in (both, {"x": numbers(1.0)}):
        await plane.predict(request(inputs=inputs, headers={"x-cohort": "old"}))
        await plane.predict(request(inputs=inputs, version=1))
    assert {tuple(inputs) for inputs, _, _ in part.calls} == {("x",)}


async def test_missing_strings_follow_the_route(plane):
    """A null is refused by name for the route, also where a version that could take it is drawn or matched."""
    can = FakeModel(scored, Signature((X, MAYBE), OUTPUTS))
    cannot = FakeModel(scored, Signature((X, TEXT), OUTPUTS))
    entries = [entry("m@1"), entry("m@2")]
    inputs = {"x": numbers(1.0), "text": texts(None)}
    match = Match({"x-cohort": "beta"}, "m@1")
    await plane.serve({"m@1": can, "m@2": cannot}, route("m", "m@1", {"m@1": 9999, "m@2": 1}, matches=(match,)))
    for fields in ({}, {"headers": {"x-cohort": "beta"}}):
        with pytest.raises(InvalidInput, match="tensor 'text': element 0 is null"):
            await plane.predict(request(inputs=inputs, **fields))
    await plane.predict(request(inputs=inputs, version=1))
    await plane.follow(entries, [route("m", "m@1", {"m@1": BUCKETS, "m@2": 0})])
    await plane.predict(request(inputs=inputs))


async def test_wanted_outputs_are_checked_and_kept_in_order(plane):
    """Named outputs are answered in the order asked; unknown and repeated ones are the caller's fault."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    prediction = await plane.predict(request(outputs=("score",)))
    assert list(prediction.outputs) == ["score"]
    assert model.calls[-1][1] == ("score",)
    assert list((await plane.predict(request())).outputs) == ["label", "score"]
    with pytest.raises(InvalidInput, match="output 'nothing': unknown; outputs are 'label', 'score'"):
        await plane.predict(request(outputs=("nothing",)))
    with pytest.raises(InvalidInput, match="output 'score': asked for twice"):
        await plane.predict(request(outputs=("score", "score")))


async def test_no_rows_are_answered_without_the_model(plane):
    """Zero rows get a zero-row answer of each output's datatype; the model is not called."""
    wide = TensorSpec("wide", Datatype.BYTES, (-1, 3, -1))
    model = FakeModel(signature=Signature((X,), (*OUTPUTS, wide)))
    fixed = FakeModel(signature=Signature((X,), (TensorSpec("one", Datatype.FP32, (1,)),)))
    await plane.serve({"m@1": model, "n@1": fixed}, route("m", "m@1"), route("n", "n@1"))
    before = len(model.calls)
    prediction = await plane.predict(request([]))
    assert {name: (t.datatype, t.shape) for name, t in prediction.outputs.items()} == {
        "label": (Datatype.INT64, (0,)),
        "score": (Datatype.FP64, (0,)),
        "wide": (Datatype.BYTES, (0, 3, 0)),
    }
    assert len(model.calls) == before
    assert plane.count("turnout_requests_total", outcome="ok") == 1
    with pytest.raises(InvalidInput, match=r"output 'one' has shape \[1\]: send at least one row"):
        await plane.predict(request([], name="n"))
