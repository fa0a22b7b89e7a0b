"""The process's side of the conversation with its parent."""

import asyncio

import pytest

from gateway.parent.messages import (
    CannotObey,
    Commit,
    Drain,
    MachineReady,
    Prepare,
    Report,
    RepositoryAnswer,
    RepositoryCall,
    WorkerGone,
)
from gateway.routing import follower as follower_module
from gateway.routing import table as table_module
from tests.fakes import FakeModel, WatchedFake, entry, request, route
from tests.waiting import eventually_async
from turnout.core.errors import Conflict, DeadlineExceeded, ErrorCode, Internal, NotFound, NotReady
from turnout.core.report import VersionState
from turnout.core.snapshot import Route, Variant


async def test_held_is_reported_once_everything_is_tried(plane):
    """A snapshot counts as held when each of its versions is ready or has failed, not before."""
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        return FakeModel()

    plane.models.update({"m@1": FakeModel(), "m@2": slow})
    await plane.prepare([entry("m@1"), entry("m@2"), entry("m@3")])
    await eventually_async(lambda: plane.states() == {"m@1": "ready", "m@2": "loading", "m@3": "failed"})
    assert plane.report.held == 0
    gate.set()
    await eventually_async(lambda: plane.report.held == 1)
    assert plane.report.generation == 0
    report = plane.report.versions["m@1"]
    assert report.state is VersionState.READY
    assert report.signature is not None
    assert report.properties["engine"] == "fake 1"
    assert report.load_seconds > 0


async def test_routes_swap_on_commit_only(plane):
    """A prepared snapshot changes nothing until it is committed; then every request follows it."""
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1"))
    generation = await plane.prepare([entry("m@1"), entry("m@2")], [route("m", "m@2")])
    assert (await plane.predict(request())).version.number == 1
    await plane.follower.handle(Commit(generation))
    prediction = await plane.predict(request())
    assert (prediction.version.number, prediction.generation) == (2, 2)
    await eventually_async(lambda: plane.report.generation == 2)
    assert plane.count("turnout_snapshot_generation") == 2


async def test_versions_of_both_snapshots_stay(plane):
    """While a newer snapshot is prepared the obeyed one keeps its versions."""
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1"), entries=[entry("m@1")])
    generation = await plane.prepare([entry("m@2")], [route("m", "m@2")])
    await eventually_async(lambda: plane.report.held == generation)
    assert plane.states() == {"m@1": "ready", "m@2": "ready"}
    await plane.follower.handle(Commit(generation))
    await eventually_async(lambda: plane.states() == {"m@2": "ready"})


async def test_abandoned_preparations_are_let_go(plane):
    """Snapshots that are prepared again and again without a commit do not pile up."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    for number in range(2, 8):
        plane.models[f"m@{number}"] = FakeModel()
        await plane.prepare([entry(f"m@{number}")])
    await eventually_async(lambda: plane.states().keys() == {"m@1", "m@6", "m@7"})


async def test_commit_of_an_older_preparation(plane):
    """A commit that was under way when a newer snapshot came is obeyed, and the newer one stays prepared."""
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel(), "m@3": FakeModel()}, route("m", "m@1"))
    older = await plane.prepare([entry("m@2")], [route("m", "m@2")])
    newer = await plane.prepare([entry("m@3")], [route("m", "m@3")])
    await plane.follower.handle(Commit(older))
    assert (await plane.predict(request())).version.number == 2
    await plane.follower.handle(Commit(newer))
    assert (await plane.predict(request())).version.number == 3


async def test_late_version_joins_its_routes(plane):
    """A version that becomes ready after the commit is served from then on, without another snapshot."""
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        return FakeModel()

    plane.models.update({"m@1": slow})
    generation = await plane.prepare([entry("m@1")], [route("m", "m@1")])
    await plane.follower.handle(Commit(generation))
    assert not plane.backend.is_model_ready("m", None)
    gate.set()
    await eventually_async(lambda: plane.backend.is_model_ready("m", None))
    await plane.predict(request())


async def committing(plane, generation):
    """Commit, and return how often the loop turned meanwhile, with the generations that answered in those turns."""
    commit = asyncio.create_task(plane.follower.handle(Commit(generation)))
    turns, answered = 0, set()
    while not commit.done():
        await asyncio.sleep(0)
        turns += 1
        answered.add(plane.router.table.generation)
    await commit
    return turns, answered


async def test_the_loop_turns_while_many_routes_are_compiled(plane, monkeypatch):
    """Thousands of routes are compiled in slices; the old routes answer until all of them swap in one step."""
    monkeypatch.setattr(table_module, "SLICE_S", 0.0)
    await plane.serve({"m@1": FakeModel(), "m@2": FakeModel()}, route("m", "m@1"))
    many = [route(f"r{number}", "m@1", {"m@1": 9_000, "m@2": 1_000}) for number in range(50)]
    generation = await plane.prepare([entry("m@1"), entry("m@2")], [route("m", "m@2"), *many])
    turns, answered = await committing(plane, generation)
    assert turns >= 3 * len(many)
    assert answered <= {1, generation}
    assert plane.router.table.generation == generation
    assert len(plane.router.table.routes) == 51


async def test_the_loop_turns_while_many_versions_are_taken_in(plane, monkeypatch):
    """Versions of a large snapshot are begun in slices as well."""
    monkeypatch.setattr(table_module, "SLICE_S", 0.0)
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    plane.models.update({f"n@{number}": FakeModel() for number in range(1, 31)})
    prepare = asyncio.create_task(plane.prepare([entry("m@1"), *(entry(f"n@{number}") for number in range(1, 31))]))
    answered = 0
    while not prepare.done():
        await plane.predict(request())
        await asyncio.sleep(0)
        answered += 1
    assert answered >= 30
    await eventually_async(lambda: plane.report.held == 2)


async def test_only_what_changed_is_compiled_again(plane):
    """Routes that say the same of the same versions are taken over; other bytes, or other shares, are not the same."""
    routes = [route("a", "m@1"), route("b", "m@1", {"m@1": 5_000, "n@1": 5_000}), route("c", "n@1")]
    await plane.serve({"m@1": FakeModel(), "n@1": FakeModel()}, *routes)
    before = plane.router.table.routes
    changed = [routes[0], route("b", "m@1", {"m@1": 6_000, "n@1": 4_000}), routes[2]]
    await plane.follow([entry("m@1"), entry("n@1")], changed)
    after = plane.router.table.routes
    assert [before[name] is after[name] for name in "abc"] == [True, False, True]
    await plane.follow([entry("m@1"), entry("n@1", digest="sha256:other")], changed)
    last = plane.router.table.routes
    assert [after[name] is last[name] for name in "abc"] == [True, False, False]


async def test_a_version_that_is_ready_during_a_commit_is_served_after_it(plane, monkeypatch):
    """What changes while routes are compiled is compiled in afterwards, into the new routes and not the old ones."""
    monkeypatch.setattr(table_module, "SLICE_S", 0.0)
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        return FakeModel()

    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    plane.models["m@2"] = slow
    many = [route(f"r{number:02}", "m@2") for number in range(30)]
    generation = await plane.prepare([entry("m@1"), entry("m@2")], many)
    commit = asyncio.create_task(plane.follower.handle(Commit(generation)))
    await asyncio.sleep(0)
    gate.set()
    await commit
    await eventually_async(lambda: all(plane.backend.is_model_ready(one.name, None) for one in many))
    for one in many:
        assert (await plane.predict(request(name=one.name))).generation == generation
    await eventually_async(lambda: plane.report.generation == generation)
    assert plane.states() == {"m@1": "ready", "m@2": "ready"}


async def test_a_loaded_version_is_ready_once_routes_know_it(plane, monkeypatch):
    """Between its load and the next table a version counts as not ready: to calls, to who asks, and to the parent."""
    gate, held_back = asyncio.Event(), asyncio.Event()

    async def slow():
        await gate.wait()
        return FakeModel()

    async def late(*arguments):
        await held_back.wait()
        return await table_module.compiled(*arguments)

    plane.models["m@1"] = slow
    await plane.follower.handle(Commit(await plane.prepare([entry("m@1")], [route("m", "m@1")])))
    monkeypatch.setattr(follower_module, "compiled", late)
    gate.set()
    await eventually_async(lambda: plane.pool.get("m@1").serving)
    assert not plane.backend.is_model_ready("m", None)
    with pytest.raises(NotReady):
        await plane.predict(request())
    assert plane.states() == {"m@1": "loading"}
    held_back.set()
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})
    assert plane.backend.is_model_ready("m", None)
    await plane.predict(request())


async def test_the_parent_hears_of_snapshots_that_cannot_be_obeyed(plane):
    """What cannot be read, was not prepared or makes no sense is answered with the reason; the old routes go on."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    (plane.folder / "broken.json").write_text("{")
    await plane.follower.handle(Prepare(7, str(plane.folder / "broken.json"), {}, {}))
    await plane.follower.handle(Prepare(8, str(plane.folder / "absent.json"), {}, {}))
    await plane.follower.handle(Commit(9))
    torn = Route("m", "m@1", (Variant("m@1", 10_000, ((0, 5),)),))
    await plane.follower.handle(Commit(await plane.prepare([entry("m@1")], [torn])))
    answers = [(message.generation, message.reason) for message in plane.sent if isinstance(message, CannotObey)]
    assert [generation for generation, _ in answers] == [7, 8, 9, 2]
    words = ("cannot be read: Input data was truncated", "No such file", "not prepared", "5 buckets of 10000")
    for (_, reason), word in zip(answers, words, strict=True):
        assert word in reason
    assert (await plane.predict(request())).generation == 1


async def test_loss_is_reported_with_its_calls(plane):
    """The parent hears of a lost worker, how many calls it took along, and of its return."""
    model = WatchedFake()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    model.lost("killed", 4)
    await eventually_async(lambda: plane.states() == {"m@1": "lost"})
    assert plane.report.versions["m@1"].crashed_calls == 4
    model.back()
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})
    model.lost("killed", 5)
    await plane.follower.handle(WorkerGone("m@1", "quarantined"))
    await eventually_async(lambda: plane.states() == {"m@1": "failed"})
    assert plane.report.versions["m@1"].reason == "quarantined"


async def test_readiness_latches_until_the_drain(plane):
    """Ready when the whole machine is, and not any more once it drains."""
    assert not plane.backend.is_ready()
    await plane.follower.handle(MachineReady())
    assert plane.backend.is_ready()
    await plane.follower.handle(Drain(5.0))
    assert not plane.backend.is_ready()


async def answered(plane, answer):
    """Ask for a load, answer it as the parent would, and wait for the end."""
    task = asyncio.create_task(plane.backend.repository_load("m"))
    await eventually_async(lambda: any(isinstance(message, RepositoryCall) for message in plane.sent))
    (call,) = [message for message in plane.sent if isinstance(message, RepositoryCall)]
    assert (call.action, call.name) == ("load", "m")
    await plane.follower.handle(answer(call.call))
    await task


async def test_repository_calls_wait_for_their_answer(plane):
    """A load ends when the parent says that it took effect."""
    await answered(plane, RepositoryAnswer)


@pytest.mark.parametrize(
    ("code", "error"),
    [(ErrorCode.CONFLICT, Conflict), (ErrorCode.NOT_FOUND, NotFound), (ErrorCode.UNSUPPORTED_ENCODING, Internal)],
)
async def test_repository_refusals_are_raised(plane, code, error):
    """A refusal comes as the error that it is."""
    with pytest.raises(error, match="because"):
        await answered(plane, lambda call: RepositoryAnswer(call, code, "because"))


async def test_repository_calls_do_not_wait_for_ever(plane, monkeypatch):
    """Without an answer a call ends with its deadline; an answer that comes later is nobody's."""
    monkeypatch.setattr(follower_module, "REPOSITORY_S", 0.01)
    with pytest.raises(DeadlineExceeded):
        await plane.backend.repository_unload("m")
    await plane.follower.handle(RepositoryAnswer(1))


async def test_reports_of_one_turn_are_one(plane):
    """Several changes in one turn of the loop make one report."""
    await plane.serve({f"m@{number}": FakeModel() for number in range(1, 6)})
    await eventually_async(lambda: plane.report.generation == 1)
    before = sum(isinstance(message, Report) for message in plane.sent)
    for served in plane.pool.versions():
        plane.follower._changed(served)
    await eventually_async(lambda: sum(isinstance(message, Report) for message in plane.sent) == before + 1)
