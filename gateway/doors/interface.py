"""What a door may ask of the gateway behind it. Doors translate bytes; every decision is on the other side."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from gateway.pressure import Pressure
from turnout.core.errors import Overloaded, TurnoutError
from turnout.core.ids import VersionRef
from turnout.core.request import CallerHeaders, Prediction, PredictRequest
from turnout.core.signature import TensorSpec

Answer: TypeAlias = Prediction | Coroutine[Any, Any, Prediction]


class ModelDescription(msgspec.Struct, frozen=True):
    """Metadata of a route or a version: `versions` are the loaded numbers, ascending, as text."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: Mapping[str, str]


class IndexEntry(msgspec.Struct, frozen=True):
    """One version in the repository index: `state` is READY, LOADING, UNAVAILABLE or UNLOADING."""

    name: str
    version: str
    state: str
    reason: str


class Timing(msgspec.Struct, frozen=True):
    """A count of events and their summed duration in nanoseconds."""

    count: int = 0
    ns: int = 0


class VersionStatistics(msgspec.Struct, frozen=True):
    """Counters of one version over all gateway processes of this machine since start.

    `inference_count` counts rows, `execution_count` calls of the model, `last_inference_ms` is Unix time.
    """

    name: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: Timing
    fail: Timing
    queue: Timing
    compute_input: Timing
    compute_infer: Timing
    compute_output: Timing


class Shed:
    """Why requests are not taken, and which version has no room; None when the process has none.

    The same for many requests: doors keep what they write for it.
    """

    __slots__ = ("error", "version")

    def __init__(self, error: Overloaded, version: VersionRef | None) -> None:
        self.error = error
        self.version = version


class Backend(Protocol):
    """The gateway as doors see it. Methods raise core errors (`NotFound`, `NotReady`, …)."""

    @property
    def pressure(self) -> Pressure:
        """What this process holds. Doors count the bytes of what is not answered within its turn."""

    def shed(
        self,
        name: str,
        number: int | None,
        headers: CallerHeaders,
        protocol: str,
        request_id: str,
        received_s: float,
        left_s: float | None,
    ) -> Shed | None:
        """Tell, without its body, that a request would be shed, and record it; None if it may be taken.

        `left_s` are the seconds that its caller gives it. To be asked while `pressure.presses`.
        """

    @property
    def generation(self) -> int:
        """The generation that last changed routes; 0 before the first snapshot."""

    def predict(self, request: PredictRequest) -> Answer:
        """Route, run and record one request; sets `request.picked` and `request.generation` as it learns them.

        Returns the prediction where nothing has to be waited for, else a coroutine that the door must await.

        Has `request.writer` write each candidate answer, so that an answer the door cannot write counts as what it
        is. A cancelled call frees its slot and raises asyncio.CancelledError.
        """

    def refused(self, route: str, protocol: str, error: TurnoutError, request_id: str, received_s: float) -> None:
        """Record a request that the door refused before it could be routed (unreadable body, too large)."""

    def describe(self, name: str, version: int | None) -> ModelDescription:
        """Return metadata of a route, or of one version of a model. Raises NotFound."""

    def is_ready(self) -> bool:
        """Tell whether the server is ready (DESIGN 6); false again while it drains."""

    def is_model_ready(self, name: str, version: int | None) -> bool:
        """Tell whether a route's champion, or the named version, is ready. Raises NotFound."""

    def index(self, *, ready_only: bool) -> Sequence[IndexEntry]:
        """List every known version."""

    def configuration(self, name: str, version: int | None) -> Mapping[str, object]:
        """Return Triton's model configuration as JSON-ready values (name, platform, max_batch_size, input, output)."""

    def statistics(self, name: str | None, version: int | None) -> Sequence[VersionStatistics]:
        """Return counters of all loaded versions, a route's versions, or one version. Raises NotFound."""

    async def repository_load(self, name: str) -> None:
        """Read model `name` from the folder again. Raises Forbidden, NotFound, Conflict, InvalidInput."""

    async def repository_unload(self, name: str) -> None:
        """Drop the model's hold and implicit route. Raises Forbidden, NotFound, Conflict."""
