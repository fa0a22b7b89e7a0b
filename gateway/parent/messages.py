"""What the parent and a gateway process say to each other: one JSON message a line over a socket pair.

The parent sends `Prepare`, `Commit`, `Drain`, `WorkerGone`, `MachineReady`, `RepositoryAnswer`; a process sends
`Heartbeat`, `Report`, `Listening`, `SaysReady`, `RepositoryCall`. A process loads what `Prepare` holds, reports each
change of a version's state, and swaps its routes only on `Commit`. `snapshot_path` names the file with the snapshot's
canonical bytes.
"""

from typing import Final, TypeAlias

import msgspec

from turnout.core.report import VersionReport

HEARTBEAT_S: Final = 1.0
MAX_LINE_BYTES: Final = 8 * 1024 * 1024


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Load what this snapshot holds. `directories` and `sockets` say where each version's files and worker are."""

    generation: int
    snapshot_path: str
    directories: dict[str, str]
    sockets: dict[str, str]
    problems: dict[str, str] = {}


class Commit(msgspec.Struct, frozen=True, tag="commit"):
    """Swap to the prepared snapshot's routes; versions that it does not hold drain and unload."""

    generation: int


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Leave: not ready, keep serving, finish within `seconds`, exit 0."""

    seconds: float


class WorkerGone(msgspec.Struct, frozen=True, tag="worker_gone"):
    """A version's worker is not to be reconnected to: it is quarantined, for this reason."""

    version: str
    reason: str


class RepositoryAnswer(msgspec.Struct, frozen=True, tag="repository_answer"):
    """Outcome of a `RepositoryCall`; `code` is an ErrorCode, empty when it is done."""

    call: int
    code: str = ""
    message: str = ""


class MachineReady(msgspec.Struct, frozen=True, tag="machine_ready"):
    """The whole machine is ready (DESIGN 6); it latches."""


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """The process's loop turns."""


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The doors are open."""


class SaysReady(msgspec.Struct, frozen=True, tag="says_ready"):
    """The answer to `MachineReady`: from now on this process's doors say that the server is ready."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Progress with snapshots: as in `turnout.core.report.GatewayReport`, for one process."""

    generation: int
    held: int
    versions: dict[str, VersionReport]


class RepositoryCall(msgspec.Struct, frozen=True, tag="repository_call"):
    """A caller asked a door to load or unload model `name`; `action` is `load` or `unload`."""

    call: int
    action: str
    name: str


ToProcess: TypeAlias = Prepare | Commit | Drain | WorkerGone | RepositoryAnswer | MachineReady
FromProcess: TypeAlias = Heartbeat | Listening | SaysReady | Report | RepositoryCall

to_process: Final = msgspec.json.Decoder(ToProcess)
from_process: Final = msgspec.json.Decoder(FromProcess)


def line(message: ToProcess | FromProcess) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"
