"""The contract between the gateway and a runtime, and nothing else.

An adapter loads a version and hands back a model. In-process engines write a `SyncModel`; `threads.py` turns it
into a `LoadedModel`. Names and datatypes here are the runtime's own; rename and cast happen above.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from turnout.core.manifest import DeclaredSignature
from turnout.core.request import CallContext
from turnout.core.signature import Signature
from turnout.core.tensor import TensorMap


class LoadFailed(Exception):
    """A version cannot be served; the text is the one-line reason that operators see."""


class ModelSource(msgspec.Struct, frozen=True):
    """What an adapter loads from.

    `directory` holds the verified files, `artifact` is a path inside it. `declared` is the manifest's signature under
    the runtime's names, datatypes as presented. `samples` are example inputs in the runtime's names (from the golden
    file), for warm-up and parity. `trusted`: code in the artifact may run. `socket` is where the parent's worker
    listens, for runtimes that use one. `scratch` is a private folder that outlives the load.
    """

    name: str
    directory: Path
    artifact: Path
    declared: DeclaredSignature
    options: Mapping[str, Any]
    trusted: bool
    scratch: Path
    samples: TensorMap | None = None
    socket: Path | None = None


@runtime_checkable
class LoadedModel(Protocol):
    """A version in memory. `signature` is in the runtime's names; `properties` are shown in its metadata."""

    signature: Signature
    properties: Mapping[str, str]

    async def predict(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap:
        """Return at least the wanted outputs for the rows of `inputs`.

        May raise core errors it means (InvalidInput, WorkerLost, DeadlineExceeded); anything else becomes ModelFault.
        """

    async def close(self) -> None:
        """Give everything back. Called once, with no call under way."""


@runtime_checkable
class QuickModel(LoadedModel, Protocol):
    """A model that may answer within the caller's own turn of the loop."""

    def predict_now(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap | None:
        """Return what `predict` would, without waiting and soon; None, with nothing done, where that cannot be."""


@runtime_checkable
class BoundedModel(LoadedModel, Protocol):
    """A model that knows how many calls it runs side by side; more would only wait inside it.

    Requests beyond them may be gathered into one call. A model that does not say it gets each request by itself.
    """

    calls_at_once: int


@runtime_checkable
class WatchedModel(LoadedModel, Protocol):
    """A model whose process may die and come back without a new load."""

    def watch(self, lost: Callable[[str, int], None], back: Callable[[], None]) -> None:
        """Ask to be told: `lost(reason, calls_in_flight)` when the process is gone, `back()` when a new one is loaded.

        Between the two `predict` raises WorkerLost at once. After `back` it works, and the golden file is due again.
        """


@runtime_checkable
class SyncModel(Protocol):
    """What authors of in-process models write: blocking calls, made from several threads at once."""

    signature: Signature
    properties: Mapping[str, str]

    def predict(self, inputs: TensorMap, outputs: Sequence[str]) -> TensorMap:
        """Return at least the wanted outputs for the rows of `inputs`."""

    def close(self) -> None:
        """Give everything back."""


class Adapter(Protocol):
    """One per runtime, without state."""

    runtime: str

    async def load(self, source: ModelSource) -> LoadedModel | SyncModel:
        """Load a version. Raises LoadFailed with the reason; cleans up after itself when it does."""
