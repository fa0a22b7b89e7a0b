"""Shedding by the heading: who would find no room is told so unread, counted for the version; others go their way."""

import asyncio

from tests.fakes import FakeModel, Gate, entry, request, route
from tests.waiting import eventually_async
from turnout.core.clock import monotonic_s
from turnout.core.manifest import VersionLimits
from turnout.core.snapshot import Fallback, Match

ONE = VersionLimits(in_flight=1, queue_rows=1)


def shed(plane, name="m", number=None, headers=None, within_s=60.0):
    """Ask whether a request would be shed."""
    return plane.backend.shed(name, number, headers or {}, "http", "r", monotonic_s(), within_s)


class Full:
    """Keeps version 1 of m busy with two callers, so that it has no room, for as long as the block runs."""

    def __init__(self, plane):
        self.plane = plane
        self.gate = Gate()
        self.tasks = []

    async def __aenter__(self):
        self.plane.models["m@1"].answer = self.gate
        self.tasks = [asyncio.create_task(self.plane.predict(request(version=1))) for _ in range(2)]
        await eventually_async(lambda: self.plane.count("turnout_queue_rows", version="1") == 1)

    async def __aexit__(self, *_):
        self.gate.event.set()
        await asyncio.gather(*self.tasks)


async def test_a_version_without_room_sheds_and_counts_it(plane):
    """The answer says who sheds and when to come back, and the request is counted once, for that version."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), entries=[entry("m@1", limits=ONE)])
    assert not plane.backend.pressure.presses
    assert shed(plane) is None
    async with Full(plane):
        assert plane.backend.pressure.presses
        found = shed(plane)
        assert str(found.version) == "m@1"
        assert found.error.retry_after_s == 1
        assert shed(plane, number=1).version == found.version
        assert plane.count("turnout_requests_total", version="1", arm="champion", outcome="overloaded") == 1
        assert plane.count("turnout_requests_total", version="1", arm="pinned", outcome="overloaded") == 1
        assert plane.count("turnout_request_duration_seconds_count", route="m", arm="champion") == 1
    assert shed(plane) is None
    assert not plane.backend.pressure.presses


async def test_who_may_be_answered_otherwise_is_not_shed(plane):
    """A request whose fallback may answer, that matches another version, or that nobody knows, goes the long way."""
    models = {"m@1": FakeModel(), "m@2": FakeModel()}
    routes = [
        route("m", "m@1", matches=(Match({"x-cohort": "beta"}, "m@2"),)),
        route("safe", "m@1", fallback=(Fallback("value", {"label": 0, "score": 0.5}),)),
        route("split", "m@1", {"m@1": 5000, "m@2": 5000}),
    ]
    await plane.serve(models, *routes, entries=[entry("m@1", limits=ONE), entry("m@2")])
    async with Full(plane):
        assert shed(plane) is not None
        assert shed(plane, headers={"x-cohort": "beta"}) is None
        assert shed(plane, number=2) is None
        for name in ("safe", "split", "nobody"):
            assert shed(plane, name) is None
        assert shed(plane, "safe", number=1) is not None


async def test_a_full_process_sheds_every_route(plane):
    """Where the process holds as many requests as it may, no version is to blame, and no fallback helps."""
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1", fallback=(Fallback("value", {"label": 0}),)))
    pressure = plane.backend.pressure
    pressure.requests = 1 << 20
    pressure.look()
    assert shed(plane, "m").version is None
    assert plane.count("turnout_requests_total", route="m", arm="none", outcome="overloaded") == 1
    pressure.requests = 0
    pressure.look()
    assert shed(plane, "m") is None


async def test_a_split_sheds_once_none_of_its_versions_has_room(plane):
    """While one has room the draw decides; after that requests are shed unread, by the weights."""
    models = {"m@1": FakeModel(), "m@2": FakeModel(), "m@3": FakeModel()}
    split = route("split", "m@1", {"m@1": 5000, "m@2": 5000, "m@3": 0})
    entries = [entry("m@1", limits=ONE), entry("m@2", limits=VersionLimits(in_flight=1, queue_rows=0)), entry("m@3")]
    await plane.serve(models, route("m", "m@1"), split, entries=entries)
    async with Full(plane):
        assert shed(plane, "split") is None
        gate = models["m@2"].answer = Gate()
        other = asyncio.create_task(plane.predict(request(version=2)))
        await eventually_async(lambda: gate.waiting)
        assert {str(shed(plane, "split").version) for _ in range(40)} == {"m@1", "m@2"}
        assert plane.count("turnout_requests_total", route="split", outcome="overloaded") == 40
        gate.event.set()
        await other
