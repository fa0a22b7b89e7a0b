"""The SQLite registry: what goes in comes out after a restart, and nothing is taken back."""

import sqlite3

import msgspec
import pytest

from turnout.control.registry.interface import AlreadyRecorded
from turnout.control.registry.store import SqliteRegistry
from turnout.core.manifest import Batching, Runtime
from turnout.core.snapshot import FileEntry, Route, Snapshot, VersionEntry

ENTRY = VersionEntry(
    "m", 1, "sha256:a", Runtime.ONNX, "m.onnx", (FileEntry("m.onnx", "ab", 3),), options={"threads": 2}
)


@pytest.fixture
def path(tmp_path):
    """Return where the records lie."""
    return tmp_path / "control" / "registry.db"


@pytest.fixture
def registry(path):
    """Return new records."""
    registry = SqliteRegistry(path)
    yield registry
    registry.close()


def reopened(path):
    """Return the records as a fresh process reads them."""
    return SqliteRegistry(path)


def test_records_outlive_the_process(registry, path):
    """Identity, versions and the last publication are read back equal."""
    registry.record(ENTRY, {"commit": "abc"})
    snapshot = Snapshot(registry.registry_id, 1, 1, (ENTRY,), (Route("m", "m@1", ()),))
    registry.publish(snapshot, "import")
    again = reopened(path)
    assert again.registry_id == registry.registry_id
    assert again.versions() == {"m@1": ENTRY}
    assert again.published() == snapshot
    again.close()


def test_a_new_registry_has_published_nothing(registry):
    """Before the first publication there is no snapshot, and every registry has an identity of its own."""
    assert registry.published() is None
    assert len(registry.registry_id) == 32


def test_a_number_never_means_other_bytes(registry):
    """A second digest under one number is refused."""
    registry.record(ENTRY, {})
    with pytest.raises(AlreadyRecorded, match="m@1 has digest sha256:a"):
        registry.record(msgspec.structs.replace(ENTRY, digest="sha256:b"), {})
    assert registry.versions()["m@1"].digest == "sha256:a"


def test_the_latest_declaration_of_a_version_counts(registry, path):
    """What the digest does not cover may be declared anew."""
    registry.record(ENTRY, {})
    changed = msgspec.structs.replace(ENTRY, batching=Batching(max_rows=8))
    registry.record(changed, {})
    again = reopened(path)
    assert again.versions() == {"m@1": changed}
    again.close()


@pytest.mark.parametrize("generation", [1, 3, 0])
def test_generations_follow_each_other(registry, generation):
    """None is left out and none comes twice."""
    registry.publish(Snapshot(registry.registry_id, 1, 1), "first")
    with pytest.raises(AlreadyRecorded, match=f"generation {generation} cannot follow 1"):
        registry.publish(Snapshot(registry.registry_id, generation, 1), "second")
    assert registry.published().generation == 1


@pytest.mark.parametrize("table", ["registry", "version", "declaration", "publication"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET rowid = rowid", "UPDATE {} SET model = 'x'"])
def test_history_cannot_be_rewritten(registry, path, table, statement):
    """The file itself refuses changes of recorded rows."""
    registry.record(ENTRY, {})
    registry.publish(Snapshot(registry.registry_id, 1, 1), "first")
    direct = sqlite3.connect(path)
    with pytest.raises(sqlite3.Error):
        direct.execute(statement.format(table))
    direct.close()
