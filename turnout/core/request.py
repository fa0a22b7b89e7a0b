"""A predict request and its answer, as both doors hand them to the router and get them back."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from turnout.core.clock import Deadline
from turnout.core.ids import VersionRef
from turnout.core.tensor import TensorMap

Parameter: TypeAlias = bool | int | float | str


class CallContext(msgspec.Struct, eq=False, gc=False):
    """What travels with a call down to the adapter."""

    request_id: str
    deadline: Deadline
    traceparent: str | None = None


class AnswerWriter(Protocol):
    """Writes answers in the form in which their request came."""

    def write(self, prediction: "Prediction", request: "PredictRequest") -> Any:
        """Return what the door sends. Raises ModelFault or InvalidInput for what the form cannot carry."""

    def writes_long(self, outputs: TensorMap) -> bool:
        """Tell whether writing these outputs takes longer than the loop should wait."""


class CallerHeaders(Protocol):
    """A caller's headers by lower-case name (gRPC metadata)."""

    def get(self, name: str, /) -> str | None:
        """Return a header's text, or None."""


class PredictRequest(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """One decoded request.

    `version` is the number in the path, or None. `outputs` are the wanted names, empty for all. `headers` are the
    caller's. `parameters` are the request's own. `deadline` is the caller's, if any.
    `received_s` is when its first byte was taken, on the monotonic clock. The router sets `picked` and `generation`.

    The router calls `writer`, which a door may set, inside the request's measured time, before it counts the outcome:
    a ModelFault that it raises (NaN in a JSON answer) is the version's, goes on to the route's fallbacks, and is never
    counted as ok. Where it says that it writes long, it is called on a thread. It must not know the request: the two
    would have to wait for the garbage collector, with all tensors.
    """

    route: str
    version: int | None
    inputs: TensorMap
    outputs: Sequence[str]
    protocol: str
    request_id: str
    received_s: float
    headers: CallerHeaders
    parameters: Mapping[str, Parameter]
    id: str = ""
    deadline: Deadline | None = None
    traceparent: str | None = None
    writer: AnswerWriter | None = None
    picked: VersionRef | None = None
    generation: int = 0


class Prediction(msgspec.Struct, eq=False, gc=False):
    """The router's answer: presented outputs in signature order (or as asked), and who gave them.

    `version` is None and `fallback` is "value" when a route's declared constant answered. `written` is what the
    request's writer made of it.
    """

    outputs: TensorMap
    version: VersionRef | None
    generation: int
    fallback: str | None = None
    written: Any = None
