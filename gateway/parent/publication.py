"""A snapshot on this machine: its bytes, where its versions' files are, and what a process is told to prepare of it."""

from pathlib import Path

import msgspec

from gateway.parent.messages import Prepare
from gateway.parent.quarantine import Suspects
from turnout.core.snapshot import Snapshot


class Publication(msgspec.Struct, frozen=True):
    """A snapshot, its canonical bytes, and what the processes are told to prepare it while nothing is suspected."""

    snapshot: Snapshot
    data: bytes
    prepare: Prepare

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each version that is held."""
        return {str(entry.ref): entry.digest for entry in self.snapshot.versions}

    def store(self) -> None:
        """Write the bytes to where the processes are told to read them, whole or not at all. Raises OSError."""
        path = Path(self.prepare.snapshot_path)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(self.data)
        temporary.replace(path)

    def told(self, suspects: Suspects) -> Prepare:
        """Return what a process is told as of now: without what is quarantined, suspects alone."""
        if not suspects:
            return self.prepare
        digests = self.digests
        refused = suspects.refused(digests)
        directories = {version: path for version, path in self.prepare.directories.items() if version not in refused}
        problems = {**refused, **self.prepare.problems}
        return msgspec.structs.replace(
            self.prepare,
            directories=directories,
            problems=problems,
            quarantined=sorted(refused),
            alone=suspects.alone(digests),
        )

    def reconnected(self, version: str, socket: str) -> "Publication":
        """Return the same with another socket of a version, if it holds that."""
        if version not in self.prepare.sockets:
            return self
        prepare = msgspec.structs.replace(self.prepare, sockets={**self.prepare.sockets, version: socket})
        return msgspec.structs.replace(self, prepare=prepare)
