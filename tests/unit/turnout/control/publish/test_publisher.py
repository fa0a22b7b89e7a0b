"""Turning the machine: what is recorded, what is told, who waits."""

import asyncio

import pytest

from turnout.control.metrics import ControlMetrics
from turnout.control.publish.publisher import Publisher
from turnout.control.publish.state import Imported, State, Tick
from turnout.control.registry.interface import NotRecorded
from turnout.control.registry.store import SqliteRegistry
from turnout.core.manifest import Runtime
from turnout.core.snapshot import VersionEntry, decode, digest

ENTRY = VersionEntry("m", 1, "sha256:1", Runtime.ONNX, "m.onnx", ())
FOUND = Imported({"m@1": ENTRY}, {"m": (1,)}, {"k": "broken"})


@pytest.fixture
def registry(tmp_path):
    """Return new records."""
    registry = SqliteRegistry(tmp_path / "registry.db")
    yield registry
    registry.close()


@pytest.fixture
def publisher(registry) -> Publisher:
    """Return a publisher that has not begun."""
    return Publisher(State(registry.registry_id), registry, ControlMetrics())


def test_nothing_is_published_before_it_begins(publisher, registry):
    """Events are noted until everything is known."""
    publisher.apply(FOUND)
    publisher.apply(Tick())
    assert publisher.publication is None
    publisher.begin()
    assert publisher.publication.snapshot.generation == 1
    assert [str(entry.ref) for entry in publisher.publication.snapshot.versions] == ["m@1"]
    assert registry.published() == publisher.publication.snapshot


def test_a_publication_has_canonical_bytes_and_their_digest(publisher):
    """What gateways get can be checked by them."""
    publisher.note(FOUND)
    publisher.begin()
    publication = publisher.publication
    assert decode(publication.data) == publication.snapshot
    assert publication.digest == digest(publication.data)


def test_what_cannot_be_recorded_is_not_published(publisher, monkeypatch, registry):
    """A full disk changes nothing for gateways; the next tick tries again, with all that was noted."""
    record = registry.publish
    monkeypatch.setattr(registry, "publish", lambda *_: (_ for _ in ()).throw(NotRecorded("disk full")))
    publisher.note(FOUND)
    publisher.begin()
    assert publisher.publication is None
    monkeypatch.setattr(registry, "publish", record)
    publisher.apply(Tick())
    assert publisher.publication.snapshot.problems == {"k": "broken"}


def test_records_that_cannot_be_written_are_told_once(publisher, monkeypatch, registry, caplog):
    """One line while the disk is full, however often it is tried, and one when it is over; no trace of calls."""
    caplog.set_level("INFO")
    record = registry.publish
    monkeypatch.setattr(registry, "publish", lambda *_: (_ for _ in ()).throw(NotRecorded("disk full")))
    publisher.note(FOUND)
    publisher.begin()
    for _ in range(3):
        publisher.apply(Tick())
    full = "STATE cannot be written: disk full; until it can be, what serves goes on unchanged"
    assert [line.message for line in caplog.records] == [full]
    assert caplog.records[0].exc_info is None
    monkeypatch.setattr(registry, "publish", record)
    publisher.apply(Tick())
    assert "STATE can be written again" in caplog.text


def test_metrics_follow(publisher):
    """Generation and problems are shown."""
    publisher.note(FOUND)
    publisher.begin()
    text = publisher._metrics.exposition().decode()
    assert "turnout_control_generation 1.0\n" in text
    assert "turnout_control_import_problems 1.0\n" in text


async def test_waiting_ends_with_the_change_the_deadline_or_the_end(publisher):
    """Whoever waits looks again after each change."""
    publisher.note(FOUND)
    waiting = asyncio.create_task(publisher.until(lambda: publisher.publication is not None, 5))
    await asyncio.sleep(0)
    publisher.begin()
    assert await asyncio.wait_for(waiting, 5) is True
    assert await publisher.until(lambda: False, 0.01) is False
    waiting = asyncio.create_task(publisher.until(lambda: False, 60))
    await asyncio.sleep(0)
    publisher.leave()
    assert await asyncio.wait_for(waiting, 5) is False
