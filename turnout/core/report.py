"""What a gateway tells control: how far it is with a snapshot, and the state of each version it holds."""

import enum

import msgspec

from turnout.core.signature import Signature


class VersionState(enum.StrEnum):
    """State of a version on a gateway. `LOST`: it was ready and its worker died or hangs; it is being restarted."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    LOST = "lost"

    @property
    def tried(self) -> bool:
        """Whether the first load has come to an end."""
        return self is not VersionState.LOADING


class VersionReport(msgspec.Struct, frozen=True):
    """One version: `signature` is the presented one, known once it is ready.

    `crashed_calls`: calls that were in flight when its worker was last lost. `quarantined`: it failed because processes
    died of it, and no load is tried until somebody asks for one.
    """

    state: VersionState
    reason: str = ""
    signature: Signature | None = None
    properties: dict[str, str] = {}
    load_seconds: float = 0.0
    crashed_calls: int = 0
    quarantined: bool = False


class GatewayReport(msgspec.Struct, frozen=True):
    """A gateway machine's progress: `generation` is the snapshot it obeys, `held` the newest it has tried to load.

    `versions` merges all its processes: a version is READY only when it is in each of them.
    `refused` says why a newer snapshot is not obeyed (another registry, a lower generation, bytes missing).
    """

    gateway: str
    registry_id: str
    generation: int
    held: int
    versions: dict[str, VersionReport]
    refused: str = ""
