"""A version whose calls fail one after another rests: it is asked no more for a while, then tried by one call."""

import asyncio

import pytest

from gateway.serving import served_version
from tests.fakes import FakeModel, Gate, entry, raising, request, route, scored
from tests.waiting import eventually_async
from turnout.core.clock import monotonic_s
from turnout.core.errors import Failing, InvalidInput, ModelFault, TurnoutError
from turnout.core.manifest import VersionLimits
from turnout.core.snapshot import Fallback

LIMITS = VersionLimits(failures=3)


class Ailing:
    """Version 1 of m with a model that fails, and a clock that a test puts forward."""

    def __init__(self, plane, monkeypatch):
        self.plane = plane
        self.model = FakeModel()
        self.ahead_s = 0.0
        monkeypatch.setattr(served_version, "monotonic_s", lambda: monotonic_s() + self.ahead_s)

    async def serve(self, **fields):
        """Serve it, well at first."""
        await self.plane.serve({"m@1": self.model}, route("m", "m@1", **fields), entries=[entry("m@1", limits=LIMITS)])
        self.model.answer = raising(ValueError("out of order"))

    async def ask(self):
        """Return the answer, or the error."""
        try:
            return await self.plane.predict(request())
        except TurnoutError as error:
            return error

    async def fail(self):
        """Let as many calls fail as it takes."""
        assert [type(await self.ask()) for _ in range(3)] == [ModelFault] * 3

    def count(self, **labels):
        """Return requests by outcome."""
        return self.plane.count("turnout_requests_total", version="1", **labels)


@pytest.fixture
def ailing(plane, monkeypatch):
    """A version that is about to fail."""
    return Ailing(plane, monkeypatch)


async def test_a_version_that_keeps_failing_is_not_asked(ailing):
    """What ran is told as what it was; after that nothing runs, and everybody is told when to come back."""
    await ailing.serve()
    await ailing.fail()
    calls = len(ailing.model.calls)
    error = await ailing.ask()
    assert type(error) is Failing
    assert error.message == "version m@1 has failed 3 calls in a row and rests"
    assert error.retry_after_s == 1
    assert len(ailing.model.calls) == calls
    assert (ailing.count(outcome="fault"), ailing.count(outcome="unavailable", arm="champion")) == (3, 1)


async def test_where_it_shows(ailing):
    """The index, the model's readiness and a metric tell; the version's stage does not change."""
    plane = ailing.plane
    await ailing.serve()
    assert plane.backend.is_model_ready("m", None)
    await ailing.fail()
    (found,) = plane.backend.index(ready_only=False)
    assert (found.state, found.reason) == ("UNAVAILABLE", "version m@1 has failed 3 calls in a row and rests")
    assert not plane.backend.is_model_ready("m", None)
    assert not plane.backend.is_model_ready("m", 1)
    assert plane.count("turnout_resting", model="m", version="1") == 1
    assert plane.states() == {"m@1": "ready"}


async def test_one_call_finds_out_and_the_others_wait_for_it_elsewhere(ailing):
    """After the pause a single call goes through; when it is answered all do."""
    await ailing.serve()
    await ailing.fail()
    ailing.ahead_s = 1.1
    gate = ailing.model.answer = Gate()
    trial = asyncio.create_task(ailing.ask())
    await eventually_async(lambda: gate.waiting)
    assert type(await ailing.ask()) is Failing
    gate.event.set()
    assert (await trial).version is not None
    assert (await ailing.ask()).version is not None
    assert ailing.plane.backend.is_model_ready("m", None)
    assert ailing.plane.count("turnout_resting", model="m", version="1") == 0


async def test_a_trial_that_fails_makes_it_rest_longer(ailing):
    """The caller of the trial is told what happened; the next trial comes after twice the pause."""
    await ailing.serve()
    await ailing.fail()
    ailing.ahead_s = 1.1
    assert type(await ailing.ask()) is ModelFault
    error = await ailing.ask()
    assert (type(error), error.retry_after_s) == (Failing, 2)


@pytest.mark.parametrize("end", ["left", "refused"])
async def test_a_trial_that_tells_nothing_is_made_again(ailing, end):
    """A caller that leaves, or sent what the model refuses, leaves the trial to the next."""
    await ailing.serve()
    await ailing.fail()
    ailing.ahead_s = 1.1
    if end == "left":
        gate = ailing.model.answer = Gate()
        trial = asyncio.create_task(ailing.ask())
        await eventually_async(lambda: gate.waiting)
        trial.cancel()
        await asyncio.wait([trial])
    else:
        ailing.model.answer = raising(InvalidInput("no"))
        assert type(await ailing.ask()) is InvalidInput
    ailing.model.answer = scored
    assert (await ailing.ask()).version is not None


async def test_a_good_answer_between_failures_starts_the_count_anew(ailing):
    """Only what fails one after another counts: a model that fails on some inputs goes on."""
    await ailing.serve()
    failing = ailing.model.answer
    for _ in range(3):
        for answer, kind in ((failing, ModelFault), (failing, ModelFault), (scored, None)):
            ailing.model.answer = answer
            got = await ailing.ask()
            assert kind is None or type(got) is kind
    assert ailing.plane.backend.is_model_ready("m", None)


async def test_fallbacks_answer_while_it_rests(ailing):
    """A route with a fallback has no errors, and the model rests all the same."""
    await ailing.serve(fallback=(Fallback("value", {"label": 0, "score": 0.5}),))
    for _ in range(3):
        assert (await ailing.ask()).fallback == "value"
    calls = len(ailing.model.calls)
    assert (await ailing.ask()).fallback == "value"
    assert len(ailing.model.calls) == calls
    plane = ailing.plane
    assert plane.count("turnout_fallbacks_total", reason="fault", outcome="ok") == 3
    assert plane.count("turnout_fallbacks_total", reason="unavailable", outcome="ok") == 1
