"""What the parent and a gateway process say to each other: one JSON message a line over a socket pair.

The parent sends `Prepare`, `Commit`, `Drain`, `WorkerGone`, `MachineReady`, `RepositoryAnswer`; a process sends
`Heartbeat`, `Loads`, `Report`, `CannotObey`, `Listening`, `SaysReady`, `Leaves`, `RepositoryCall`. A process loads what
`Prepare` holds, reports each change of a version's state, and swaps its routes only on `Commit`. `snapshot_path` names
the file with the snapshot's canonical bytes.
"""

from typing import Final, TypeAlias

import msgspec

from turnout.core.report import VersionReport

HEARTBEAT_S: Final = 1.0
MAX_LINE_BYTES: Final = 8 * 1024 * 1024


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Load what this snapshot holds. `directories` and `sockets` say where each version's files and worker are.

    A version without a directory fails, for its reason in `problems`; one in `quarantined` is known to be refused for
    now. Those in `alone` load last and one by one: a process has died while it loaded them. A version whose socket is
    another one than before is loaded anew.
    """

    generation: int
    snapshot_path: str
    directories: dict[str, str]
    sockets: dict[str, str]
    problems: dict[str, str] = {}
    quarantined: list[str] = []
    alone: list[str] = []


class Commit(msgspec.Struct, frozen=True, tag="commit"):
    """Swap to the prepared snapshot's routes; versions that it does not hold drain and unload."""

    generation: int


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Leave: keep serving, finish within `seconds`, exit 0.

    `relieved`: another process serves in its place, so it takes no new connections; else the whole machine leaves, and
    the doors say that they are not ready.
    """

    seconds: float
    relieved: bool = False


class WorkerGone(msgspec.Struct, frozen=True, tag="worker_gone"):
    """A version will not be served, for this reason: its worker's load failed, or it is quarantined."""

    version: str
    reason: str
    quarantined: bool = False


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


class Leaves(msgspec.Struct, frozen=True, tag="leaves"):
    """An operator has signalled this process to end: one that serves goes on until it is told to drain."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Progress with snapshots: as in `turnout.core.report.GatewayReport`, for one process."""

    generation: int
    held: int
    versions: dict[str, VersionReport]


class Loads(msgspec.Struct, frozen=True, tag="loads"):
    """What the process itself is loading from now on, by version the digest: if it dies, probably of one of them."""

    versions: dict[str, str]


class CannotObey(msgspec.Struct, frozen=True, tag="cannot_obey"):
    """The answer to a `Prepare` or `Commit` that the process cannot follow; it goes on with what it had."""

    generation: int
    reason: str


class RepositoryCall(msgspec.Struct, frozen=True, tag="repository_call"):
    """A caller asked a door to load or unload model `name`; `action` is `load` or `unload`."""

    call: int
    action: str
    name: str


ToProcess: TypeAlias = Prepare | Commit | Drain | WorkerGone | RepositoryAnswer | MachineReady
FromProcess: TypeAlias = Heartbeat | Listening | SaysReady | Leaves | Report | Loads | CannotObey | RepositoryCall

to_process: Final = msgspec.json.Decoder(ToProcess)
from_process: Final = msgspec.json.Decoder(FromProcess)


def line(message: ToProcess | FromProcess) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"
