"""A predict request and its answer, as both doors hand them to the router and get them back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from turnout.core.clock import Deadline
from turnout.core.ids import VersionRef
from turnout.core.tensor import TensorMap

Parameter: TypeAlias = bool | int | float | str


class CallContext:
    """What travels with a call down to the adapter."""

    __slots__ = ("deadline", "request_id", "traceparent")

    def __init__(self, request_id: str, deadline: Deadline, traceparent: str | None = None) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.traceparent = traceparent


class PredictRequest:
    """One decoded request.

    `version` is the number in the path, or None. `outputs` are the wanted names, empty for all. `headers` are the
    caller's, lower-case (gRPC metadata). `parameters` are the request's own. `deadline` is the caller's, if any.
    `received_s` is when its first byte was taken, on the monotonic clock. The router sets `picked` and `generation`.

    `encode`, which a door may set, turns an answer into the door's bytes and keeps them. The router calls it inside
    the request's measured time, before it counts the outcome: a ModelFault that it raises (NaN in a JSON answer) is
    the version's, goes on to the route's fallbacks, and is never counted as ok. Where `encodes_long` says so of the
    outputs, it is called on a thread.
    """

    __slots__ = (
        "deadline",
        "encode",
        "encodes_long",
        "generation",
        "headers",
        "id",
        "inputs",
        "outputs",
        "parameters",
        "picked",
        "protocol",
        "received_s",
        "request_id",
        "route",
        "traceparent",
        "version",
    )

    def __init__(
        self,
        *,
        route: str,
        version: int | None,
        inputs: TensorMap,
        outputs: Sequence[str],
        protocol: str,
        request_id: str,
        received_s: float,
        headers: Mapping[str, str],
        parameters: Mapping[str, Parameter],
        id: str = "",  # noqa: A002  the protocol's own word
        deadline: Deadline | None = None,
        traceparent: str | None = None,
        encode: "Callable[[Prediction], None] | None" = None,
        encodes_long: Callable[[TensorMap], bool] | None = None,
    ) -> None:
        self.route = route
        self.version = version
        self.inputs = inputs
        self.outputs = outputs
        self.protocol = protocol
        self.request_id = request_id
        self.received_s = received_s
        self.headers = headers
        self.parameters = parameters
        self.id = id
        self.deadline = deadline
        self.traceparent = traceparent
        self.encode = encode
        self.encodes_long = encodes_long
        self.picked: VersionRef | None = None
        self.generation = 0


class Prediction:
    """The router's answer: presented outputs in signature order (or as asked), and who gave them.

    `version` is None and `fallback` is "value" when a route's declared constant answered.
    """

    __slots__ = ("fallback", "generation", "outputs", "version")

    def __init__(
        self, outputs: TensorMap, version: VersionRef | None, generation: int, fallback: str | None = None
    ) -> None:
        self.outputs = outputs
        self.version = version
        self.generation = generation
        self.fallback = fallback
