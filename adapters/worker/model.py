"""A version that runs in a worker, as a gateway process sees it: a connection that may be lost and come back.

It must not start or stop the worker: the parent's supervisor does.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from adapters.interface import BoundedModel, LoadFailed, ModelSource, WatchedModel
from adapters.worker import frames
from adapters.worker.channel import Channel, WorkerError
from adapters.worker.frames import BadFrame, Frame, FrameType, Part
from turnout.core.clock import Deadline
from turnout.core.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    ModelFault,
    NotReady,
    Overloaded,
    TurnoutError,
    WorkerLost,
)
from turnout.core.request import CallContext
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Datatype, Tensor, TensorMap

_LOG: Final = logging.getLogger(__name__)
READY_WITHIN_S: Final = 600.0
_STEP_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_ERRORS: Final[dict[str, type[TurnoutError]]] = {
    "invalid_input": InvalidInput,
    "model_fault": ModelFault,
    "cancelled": Cancelled,
    "deadline": DeadlineExceeded,
    "overloaded": Overloaded,
    "not_ready": NotReady,
}


class _Loaded:
    """What LOADED says."""

    __slots__ = ("properties", "signature")

    def __init__(self, frame: Frame) -> None:
        """Read a LOADED frame. Raises BadFrame."""
        parts = {part.name: part for part in frames.unpack(frame)}
        if frame.type != FrameType.LOADED or not {"inputs", "outputs"} <= parts.keys():
            raise BadFrame("the worker did not answer with LOADED")
        inputs = [_spec(row, nullable=row[3] == "1") for row in frames.rows_of(parts["inputs"], 4)]
        outputs = [_spec(row) for row in frames.rows_of(parts["outputs"], 3)]
        ignored = frames.texts_of(parts["ignored"]) if "ignored" in parts else []
        self.signature = Signature(inputs=tuple(inputs), outputs=tuple(outputs), ignored=tuple(ignored))
        properties = frames.rows_of(parts["properties"], 2) if "properties" in parts else []
        self.properties = {row[0]: row[1] for row in properties}


class WorkerModel(BoundedModel, WatchedModel):
    """A loaded worker. While it is gone, `predict` raises WorkerLost at once; it connects again by itself."""

    def __init__(self, socket: Path, name: str, calls_at_once: int) -> None:
        self.signature = Signature()
        self.properties: Mapping[str, str] = {}
        self.calls_at_once = calls_at_once
        self._socket = socket
        self._name = name
        self._channel: Channel | None = None
        self._lost_reason = ""
        self._lost: Callable[[str, int], None] = lambda _reason, _calls: None
        self._back: Callable[[], None] = lambda: None
        self._reconnecting: asyncio.Task[None] | None = None
        self._outputs: dict[str, Datatype] = {}
        self._closed = False

    @classmethod
    async def connect(
        cls, source: ModelSource, calls_at_once: int = 1, within_s: float = READY_WITHIN_S
    ) -> "WorkerModel":
        """Wait until the worker has loaded its model; so many calls it runs at once.

        Raises LoadFailed when it has not `within_s` seconds.
        """
        if source.socket is None:
            raise LoadFailed("this runtime runs in a worker, and nobody started one")
        model = cls(source.socket, source.name, calls_at_once)
        try:
            async with asyncio.timeout(within_s):
                loaded = await model._attach()
        except TimeoutError as error:
            raise LoadFailed(f"its worker has not loaded it within {within_s:g} s") from error
        model.signature, model.properties = loaded.signature, loaded.properties
        model._outputs = {spec.name: spec.datatype for spec in loaded.signature.outputs}
        reserved = [spec.name for spec in loaded.signature.inputs if spec.name.startswith(":")]
        if reserved:
            await model.close()
            raise LoadFailed(f"input '{reserved[0]}': the worker protocol keeps names with a leading ':' for itself")
        return model

    async def predict(self, inputs: TensorMap, outputs: Sequence[str], context: CallContext) -> TensorMap:
        """Send the rows to the worker. Raises what its ERROR means, and WorkerLost when it is gone."""
        channel = self._channel
        if channel is None:
            raise WorkerLost(f"the worker is gone: {self._lost_reason}")
        parts = [Part(name, tensor.datatype, tensor.shape, tensor.raw()) for name, tensor in inputs.items()]
        if len(outputs) != len(self._outputs):
            wanted = frames.join_elements(name.encode() for name in outputs)
            parts.append(Part(":outputs", frames.BYTES, (len(outputs),), wanted))
        if context.traceparent is not None:
            parts.append(frames.text(":traceparent", context.traceparent))
        try:
            return _tensors(await channel.call(FrameType.PREDICT, parts, context.deadline))
        except WorkerError as error:
            raise _ERRORS.get(error.code, ModelFault)(error.message) from error
        except BadFrame as error:
            raise ModelFault(f"the worker's answer cannot be read: {error}") from error
        except ValueError as error:
            raise InvalidInput(f"the request cannot travel to the model's worker: {error}") from error

    def watch(self, lost: Callable[[str, int], None], back: Callable[[], None]) -> None:
        """Ask to be told of the worker's loss and return."""
        self._lost, self._back = lost, back

    async def close(self) -> None:
        """Leave the worker."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._channel is not None:
            self._channel.close()

    async def _attach(self) -> _Loaded:
        """Connect, again and again, until a worker says LOADED."""
        pause_s = _FIRST_PAUSE_S
        while True:
            channel: Channel | None = None
            try:
                channel = await Channel.open(self._socket, self._name, self._on_lost, Deadline.after(_STEP_S))
                loaded = _Loaded(await channel.call(FrameType.DESCRIBE, None, Deadline.after(_STEP_S)))
            except (OSError, TurnoutError, WorkerError, BadFrame) as error:
                if channel is not None:
                    channel.close()
                _LOG.debug("worker of %s: not yet: %s", self._name, error)
            except BaseException:
                if channel is not None:
                    channel.close()
                raise
            else:
                if channel.is_open:
                    self._channel = channel
                    return loaded
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _on_lost(self, reason: str, calls_in_flight: int) -> None:
        if self._closed or self._channel is None or self._channel.is_open:
            return  # an attempt of `_attach` ended, or we left
        self._channel = None
        self._lost_reason = reason
        self._lost(reason, calls_in_flight)
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while True:
            loaded = await self._attach()
            if loaded.signature == self.signature:
                self._back()
                return
            self._lost_reason = "it came back with another signature"
            _LOG.error("worker of %s: %s", self._name, self._lost_reason)
            channel, self._channel = self._channel, None
            assert channel is not None
            channel.close()
            await asyncio.sleep(_STEP_S)


def _spec(row: Sequence[str], *, nullable: bool = False) -> TensorSpec:
    name, datatype, shape = row[:3]
    try:
        return TensorSpec(name, Datatype(datatype), frames.shape_of(shape), nullable)
    except ValueError as error:
        raise BadFrame(f"'{name}': {error}") from error


def _tensors(frame: Frame) -> dict[str, Tensor]:
    """Return the tensors of a RESULT as views of what was received. Raises BadFrame."""
    if frame.type != FrameType.RESULT:
        raise BadFrame(f"frame type {frame.type} is no RESULT")
    tensors: dict[str, Tensor] = {}
    for part in frames.unpack(frame):
        try:
            tensors[part.name] = Tensor.from_raw(part.name, Datatype(part.datatype), part.shape, part.data)
        except (InvalidInput, ValueError) as error:
            raise BadFrame(f"{error} ({math.prod(part.shape)} elements)") from error
    return tensors
