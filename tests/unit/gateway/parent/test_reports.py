"""Reports to control, and repository calls that wait for them."""

import asyncio

import pytest

from gateway.parent.control_client import ControlUnreachable
from gateway.parent.messages import RepositoryAnswer, RepositoryCall
from gateway.parent.reports import Reports
from gateway.parent.repository import RepositoryCalls
from tests.waiting import eventually_async
from turnout.core.errors import ErrorCode
from turnout.core.report import GatewayReport


class FakeControl:
    """Takes reports, one at a time while `open` is set, and repository calls."""

    def __init__(self):
        self.heard = []
        self.asked = []
        self.reachable = True
        self.open = asyncio.Event()
        self.open.set()

    async def report(self, report):
        """Hear a report."""
        await self.open.wait()
        if not self.reachable:
            raise ControlUnreachable("connection refused")
        self.heard.append(report.generation)

    async def repository(self, action, name):
        """Do what is asked."""
        self.asked.append((action, name))
        return "", ""


class FakeProcess:
    """A gateway process that hears answers."""

    def __init__(self):
        self.sent = []

    def send(self, message):
        """Keep."""
        self.sent.append(message)


@pytest.fixture
def machine():
    """Return a machine's state, to be changed by the test."""
    return {"generation": 1}


def _reports(control, machine):
    return Reports(control, lambda: GatewayReport("g", "r", machine["generation"], 0, {}))


async def test_reports_never_overtake_each_other(machine):
    """What is told last is what is true last, though two parts of the parent report at the same time."""
    control = FakeControl()
    reports = _reports(control, machine)
    control.open.clear()
    first = asyncio.create_task(reports.send())
    await asyncio.sleep(0)
    machine["generation"] = 2
    second = asyncio.create_task(reports.send())
    await asyncio.sleep(0)
    machine["generation"] = 3
    control.open.set()
    await asyncio.gather(first, second)
    assert control.heard == [1, 3]


async def test_the_same_report_is_sent_again_only_if_it_was_not_heard(machine):
    """Nothing new is no message; control that was out of reach hears it when the next one is due."""
    control = FakeControl()
    control.reachable = False
    reports = _reports(control, machine)
    keeping = asyncio.create_task(reports.keep())
    reports.due.set()
    await eventually_async(lambda: not reports.due.is_set())
    control.reachable = True
    reports.due.set()
    await eventually_async(lambda: control.heard)
    await reports.send()
    assert control.heard == [1]
    keeping.cancel()


async def test_a_load_is_prepared_before_control_is_asked(machine):
    """Control answers by what it has heard, so a retry comes first; one that fails is the answer by itself."""
    control, process, order = FakeControl(), FakeProcess(), []

    async def before_load(asked, model):
        assert asked is process
        order.append((model, list(control.asked)))
        return "bad@1 cannot be served: it died" if model == "bad" else ""

    calls = RepositoryCalls(control, before_load)
    calls.forward(process, RepositoryCall(1, "load", "m"))
    await eventually_async(lambda: process.sent == [RepositoryAnswer(1)])
    calls.forward(process, RepositoryCall(2, "unload", "m"))
    await eventually_async(lambda: process.sent[1:] == [RepositoryAnswer(2)])
    assert order == [("m", [])]
    calls.forward(process, RepositoryCall(3, "load", "bad"))
    failure = RepositoryAnswer(3, ErrorCode.INVALID_INPUT, "bad@1 cannot be served: it died")
    await eventually_async(lambda: process.sent[2:] == [failure])
    assert control.asked == [("load", "m"), ("unload", "m")]
