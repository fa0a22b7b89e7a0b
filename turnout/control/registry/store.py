"""The records in one SQLite file, STATE/control/registry.db. Rows are inserted, never changed (triggers refuse it)."""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from turnout.control.registry.interface import AlreadyRecorded, NotRecorded
from turnout.core.clock import wall_s
from turnout.core.snapshot import Route, Snapshot, VersionEntry, decode, encode

_TABLES: Final = ("registry", "version", "declaration", "publication")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS registry (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS version (
  model TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (model, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS declaration (
  seq INTEGER PRIMARY KEY, model TEXT NOT NULL, number INTEGER NOT NULL, at_s REAL NOT NULL,
  entry BLOB NOT NULL, lineage BLOB NOT NULL, FOREIGN KEY (model, number) REFERENCES version (model, number)
);
CREATE TABLE IF NOT EXISTS publication (
  generation INTEGER PRIMARY KEY, routes_generation INTEGER NOT NULL, at_s REAL NOT NULL, cause TEXT NOT NULL,
  folder TEXT NOT NULL, routes BLOB
);
-- The last snapshot whole; its history is in `publication`, which keeps routes only where they changed.
CREATE TABLE IF NOT EXISTS last_snapshot (one INTEGER PRIMARY KEY CHECK (one = 1), bytes BLOB NOT NULL);
"""
_GUARD: Final = """
CREATE TRIGGER IF NOT EXISTS {table}_no_{action} BEFORE {action} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END;
"""


class SqliteRegistry:
    """A registry in one file, for one process (`STATE/lock` sees to that) that serves one FOLDER, or none: ''."""

    def __init__(self, path: Path, folder: str = "") -> None:
        """Open the file, making it where there is none. Raises NotRecorded."""
        self._folder = folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _opened(path)
            self.registry_id = self._identity()
            self._versions = self._read_versions()
            self._last = self._read_last()
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise NotRecorded(f"{path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def versions(self) -> Mapping[str, VersionEntry]:
        """Return every version by `model@number`, as last declared."""
        return self._versions

    def record(self, entry: VersionEntry, lineage: Mapping[str, Any]) -> None:
        """Record a version, or a new declaration of one with equal bytes. Raises AlreadyRecorded, NotRecorded."""
        known = self._versions.get(str(entry.ref))
        if known is not None and known.digest != entry.digest:
            raise AlreadyRecorded(f"{entry.ref} has digest {known.digest}")
        now_s = wall_s()
        with self._transaction():
            if known is None:
                self._db.execute(
                    "INSERT INTO version VALUES (?, ?, ?, ?)", (entry.model, entry.number, entry.digest, now_s)
                )
            self._db.execute(
                "INSERT INTO declaration (model, number, at_s, entry, lineage) VALUES (?, ?, ?, ?, ?)",
                (entry.model, entry.number, now_s, msgspec.json.encode(entry), msgspec.json.encode(lineage)),
            )
        self._versions[str(entry.ref)] = entry

    def published(self) -> Snapshot | None:
        """Return what was last published."""
        return self._last

    def routes(self) -> tuple[Route, ...]:
        """Return the routes last in force for this FOLDER; none while another FOLDER was served only."""
        row = self._db.execute(
            "SELECT routes FROM publication WHERE folder = ? AND routes IS NOT NULL ORDER BY generation DESC LIMIT 1",
            (self._folder,),
        ).fetchone()
        return msgspec.json.decode(row[0], type=tuple[Route, ...]) if row else ()

    def publish(self, snapshot: Snapshot, cause: str) -> None:
        """Record a publication before anybody sees it; its generation is the next. Raises as `record`."""
        last = self._last.generation if self._last else 0
        if snapshot.generation != last + 1:
            raise AlreadyRecorded(f"generation {snapshot.generation} cannot follow {last}")
        routes = msgspec.json.encode(snapshot.routes) if snapshot.routes_generation == snapshot.generation else None
        with self._transaction():
            self._db.execute(
                "INSERT INTO publication VALUES (?, ?, ?, ?, ?, ?)",
                (snapshot.generation, snapshot.routes_generation, wall_s(), cause, self._folder, routes),
            )
            self._db.execute(
                "INSERT INTO last_snapshot VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET bytes = excluded.bytes",
                (encode(snapshot),),
            )
        self._last = snapshot

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits, or rolls back on an error
                yield
        except sqlite3.Error as error:
            raise NotRecorded(str(error)) from error

    def _identity(self) -> str:
        self._db.execute("INSERT INTO registry SELECT ? WHERE NOT EXISTS (SELECT 1 FROM registry)", (uuid.uuid4().hex,))
        (identity,) = self._db.execute("SELECT id FROM registry").fetchone()
        return str(identity)

    def _read_versions(self) -> dict[str, VersionEntry]:
        rows = self._db.execute("SELECT entry FROM declaration ORDER BY seq")
        entries = (msgspec.json.decode(row[0], type=VersionEntry) for row in rows)
        return {str(entry.ref): entry for entry in entries}

    def _read_last(self) -> Snapshot | None:
        row = self._db.execute("SELECT bytes FROM last_snapshot").fetchone()
        return decode(row[0]) if row else None


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    # A generation that a gateway has seen must never be given out again, also after a power cut.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    guards = [_GUARD.format(table=table, action=action) for table in _TABLES for action in ("UPDATE", "DELETE")]
    db.executescript(_SCHEMA + "".join(guards))
    return db
