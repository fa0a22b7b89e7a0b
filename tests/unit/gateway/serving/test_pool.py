"""The pool: it loads what is held, unloads what is not once drained, and keeps versions apart by their bytes."""

import asyncio

import pytest

from gateway.serving import pool as pool_module
from gateway.serving.pool import LOADS_AT_ONCE
from gateway.serving.served_version import Failure
from gateway.serving.stages import Stage
from tests.fakes import FakeModel, Gate, entry, request, route
from tests.waiting import eventually_async
from turnout.core.errors import NotFound, NotReady
from turnout.core.manifest import Runtime, VersionLimits


async def test_leaving_version_finishes_what_it_began(plane):
    """A version that left the snapshot answers what is under way, then its model is closed, once."""
    gate = Gate()
    model = FakeModel()
    await plane.serve({"m@1": model, "m@2": FakeModel()}, route("m", "m@1"))
    model.answer = gate
    under_way = asyncio.create_task(plane.predict(request()))
    await eventually_async(lambda: gate.waiting)
    await plane.follow([entry("m@2")], [route("m", "m@2")])
    assert (await plane.predict(request())).version.number == 2
    await eventually_async(lambda: plane.report.versions.keys() == {"m@2"})
    assert [(served.key, served.stage) for served in plane.pool.leaving()] == [("m@1", Stage.DRAINING)]
    assert model.closed == 0
    gate.event.set()
    assert (await under_way).version.number == 1
    await eventually_async(lambda: model.closed == 1)
    await eventually_async(lambda: not list(plane.pool.leaving()))
    with pytest.raises(NotFound):
        await plane.predict(request(version=1))


async def test_loads_in_process_take_turns(plane):
    """Only so many versions load in this process at once; those of workers, which only wait here, do not count."""
    gate = asyncio.Event()
    loading = 0

    async def slow():
        nonlocal loading
        loading += 1
        await gate.wait()
        return FakeModel()

    names = [f"m@{number}" for number in range(1, 6)]
    plane.models.update(dict.fromkeys([*names, "w@1"], slow))
    await plane.prepare([*(entry(name, runtime=Runtime.ONNX) for name in names), entry("w@1")])
    await eventually_async(lambda: loading == LOADS_AT_ONCE + 1)
    assert {"w@1"} < set(plane.adapter.loads)
    gate.set()
    await eventually_async(lambda: set(plane.states().values()) == {"ready"})


async def test_loads_that_hang_keep_nobody_out(plane, monkeypatch):
    """One that takes long gives its turn up, loads on, and can still be unloaded."""
    monkeypatch.setattr(pool_module, "TURN_S", 0.05)
    ended = []

    def hanging(name):
        async def load():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return load

    names = [f"m@{number}" for number in range(1, 6)]
    plane.models.update({name: hanging(name) for name in names[:3]} | dict.fromkeys(names[3:], FakeModel()))
    await plane.prepare([entry(name, runtime=Runtime.ONNX) for name in names])
    await eventually_async(lambda: sorted(plane.states().values()) == ["loading"] * 3 + ["ready"] * 2)
    plane.pool.keep(names[3:])
    await eventually_async(lambda: sorted(ended) == names[:3])


async def test_a_suspect_loads_alone_and_after_the_others(plane):
    """While a version loads that a process died of, no other does; the parent hears beforehand of each load."""
    gate = asyncio.Event()
    under_way: list[str] = []
    crowds: list[tuple[str, ...]] = []

    def slow(name):
        async def load():
            assert told[-1].keys() >= {name}
            under_way.append(name)
            crowds.append(tuple(under_way))
            await gate.wait()
            under_way.remove(name)
            return FakeModel()

        return load

    told = plane.loads
    names = ["a@1", "b@1", "c@1", "d@1"]
    plane.models.update({name: slow(name) for name in names})
    await plane.prepare([entry(name, runtime=Runtime.ONNX) for name in names], alone=["a@1", "b@1"])
    await eventually_async(lambda: under_way == ["c@1", "d@1"])
    gate.set()
    await eventually_async(lambda: set(plane.states().values()) == {"ready"})
    assert crowds[2:] == [("a@1",), ("b@1",)]
    assert told[-1] == {}


async def test_what_loads_is_told_until_its_load_is_over(plane):
    """A load that fails or is given up is over too; a worker's version is not loaded in this process."""

    async def never():
        await asyncio.Event().wait()

    plane.models.update({"never@1": never, "w@1": never})
    await plane.prepare([entry("never@1", runtime=Runtime.ONNX), entry("bad@1", runtime=Runtime.ONNX), entry("w@1")])
    await eventually_async(lambda: plane.loads[-1:] == [{"never@1": "sha256:never@1"}])
    await plane.follow([], [])
    await eventually_async(lambda: plane.loads[-1] == {})
    assert {"bad@1", "never@1"} == {version for loading in plane.loads for version in loading}


async def test_same_bytes_are_loaded_once(plane):
    """A version that stays in the next snapshot is not loaded again; new bounds are taken at once."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"))
    served = plane.pool.get("m@1")
    await plane.follow([entry("m@1", limits=VersionLimits(in_flight=3))], [route("m", "m@1")])
    assert plane.pool.get("m@1") is served
    assert plane.adapter.loads == ["m@1"]
    assert served._admission.in_flight == 3


async def test_other_bytes_take_the_place(plane):
    """Other bytes under the same number (another registry) replace the old ones."""
    old, new = FakeModel(), FakeModel()
    await plane.serve({"m@1": old}, route("m", "m@1"))
    plane.models["m@1"] = new
    await plane.follow([entry("m@1", digest="sha256:other")], [route("m", "m@1")])
    await plane.predict(request())
    assert new.calls
    await eventually_async(lambda: old.closed == 1)


async def test_version_without_files_fails_until_they_come(plane):
    """A version whose bytes could not be had fails with that problem, and loads once a snapshot brings them."""
    plane.models["m@1"] = FakeModel()
    await plane.follow([entry("m@1")], [route("m", "m@1")], lacking={"m@1": "blob is missing"})
    assert plane.report.versions["m@1"].reason == "blob is missing"
    with pytest.raises(NotReady):
        await plane.predict(request())
    await plane.follow([entry("m@1")], [route("m", "m@1")])
    await plane.predict(request())


async def test_unloading_stops_a_load_under_way(plane):
    """A version that leaves while it loads is never ready and leaves nothing behind."""
    entered = asyncio.Event()

    async def never():
        entered.set()
        await asyncio.Event().wait()

    plane.models["m@1"] = never
    await plane.prepare([entry("m@1")])
    await entered.wait()
    await plane.follow([], [])
    await eventually_async(lambda: not list(plane.pool.leaving()))
    assert plane.states() == {}


async def test_version_with_another_worker_is_loaded_anew(plane):
    """A version that was taken out for its worker comes back with the next one; told the same again, it stays."""
    first, second = FakeModel(), FakeModel()
    plane.models["m@1"] = first
    await plane.follow([entry("m@1", runtime=Runtime.PYTHON)], [route("m", "m@1")], sockets={"m@1": "/sockets/0"})
    await plane.follow([entry("m@1", runtime=Runtime.PYTHON)], [route("m", "m@1")], sockets={"m@1": "/sockets/0"})
    plane.pool.fail("m@1", Failure("quarantined: 3 losses", quarantined=True))
    await eventually_async(lambda: plane.states() == {"m@1": "failed"})
    assert first.closed == 1
    plane.models["m@1"] = second
    await plane.follow([entry("m@1", runtime=Runtime.PYTHON)], [route("m", "m@1")], sockets={"m@1": "/sockets/1"})
    await eventually_async(lambda: plane.states() == {"m@1": "ready"})
    assert not plane.report.versions["m@1"].quarantined
    assert (await plane.predict(request())).version.number == 1
    assert (first.closed, second.closed) == (1, 0)


async def test_worker_that_never_comes_fails_its_version(plane):
    """The parent may say that a worker will not come before, while or after the version is prepared."""
    entered = asyncio.Event()

    async def waits_for_worker():
        entered.set()
        await asyncio.Event().wait()

    plane.models.update({"early@1": waits_for_worker, "late@1": waits_for_worker})
    plane.pool.fail("early@1", Failure("no JDK"))
    await plane.prepare([entry("early@1"), entry("late@1")])
    await eventually_async(lambda: plane.states().get("early@1") == "failed")
    await entered.wait()
    plane.pool.fail("late@1", Failure("no JDK either"))
    await eventually_async(lambda: plane.states() == {"early@1": "failed", "late@1": "failed"})
    assert plane.report.versions["early@1"].reason == "no JDK"
    assert plane.report.versions["late@1"].reason == "no JDK either"
