"""What control asks of its records. A version's bytes never change under its number; nothing recorded is taken back."""

from collections.abc import Mapping
from typing import Any, Protocol

from turnout.core.snapshot import Route, Snapshot, VersionEntry


class AlreadyRecorded(Exception):
    """A version's number is taken by other bytes."""


class NotRecorded(Exception):
    """The records cannot be written; what was to be recorded has not happened."""


class Registry(Protocol):
    """Versions and publications."""

    @property
    def registry_id(self) -> str:
        """Identity of these records; gateways follow one registry only."""

    def versions(self) -> Mapping[str, VersionEntry]:
        """Return every version by `model@number`, as last declared."""

    def record(self, entry: VersionEntry, lineage: Mapping[str, Any]) -> None:
        """Record a version, or a new declaration of one with equal bytes. Raises AlreadyRecorded, NotRecorded."""

    def published(self) -> Snapshot | None:
        """Return what was last published."""

    def routes(self) -> tuple[Route, ...]:
        """Return the routes last in force for this FOLDER; none while another FOLDER was served only."""

    def publish(self, snapshot: Snapshot, cause: str) -> None:
        """Record a publication before anybody sees it; its generation is the next. Raises as `record`."""

    def close(self) -> None:
        """Give everything back."""
