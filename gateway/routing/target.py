"""A version as callers of one route reach it: which tensors it takes from them, which of its answers they may ask."""

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np

from gateway.serving.served_version import ServedVersion
from turnout.core.errors import InvalidInput, NotReady
from turnout.core.ids import VersionRef
from turnout.core.signature import InputCheck, Signature, TensorSpec, names, rows_of
from turnout.core.tensor import Datatype, Tensor, TensorMap


class Interface(msgspec.Struct, frozen=True):
    """What a route takes, whatever version answers.

    `no_missing` are the text inputs that some weighted version takes only whole: the route refuses missing elements
    for all its versions.
    """

    inputs: tuple[TensorSpec, ...] = ()
    ignored: tuple[str, ...] = ()
    no_missing: frozenset[str] = frozenset()


def interface(
    declared: tuple[TensorSpec, ...] | None, champion: Signature | None, weighted: Collection[Signature]
) -> Interface:
    """Return a route's interface: its own declared inputs, else its champion's; `weighted` are those of the split."""
    inputs = declared if declared is not None else champion.inputs if champion is not None else ()
    refusing = {
        spec.name
        for signature in weighted
        for spec in signature.inputs
        if spec.datatype is Datatype.BYTES and not spec.nullable
    }
    return Interface(inputs, champion.ignored if champion is not None else (), frozenset(refusing))


def whole(version: Signature, route: Interface) -> Signature:
    """Return what a caller of the split must send to this version: all that the route takes.

    So whether a request is taken never depends on the draw. What the version does not take is dropped afterwards.
    """
    mine = {spec.name: spec for spec in version.inputs}
    specs = [mine.pop(spec.name, spec) for spec in route.inputs]
    specs += mine.values()
    ignored = {*version.ignored, *route.ignored}
    return Signature(_strict(specs, route), version.outputs, tuple(sorted(ignored)))


def own(version: Signature, route: Interface) -> Signature:
    """Return what a caller must send who gets this version for sure: what it takes itself; the rest may come along."""
    return Signature(_strict(version.inputs, route), version.outputs, version.ignored)


class Target:
    """A version behind a route. `served` is None while the pool does not have it, `signature` is the checked one."""

    __slots__ = ("_check", "_engine", "_takes", "inputs", "key", "outputs", "ref", "served", "signature")

    def __init__(
        self,
        ref: VersionRef,
        served: ServedVersion | None,
        signature: Signature | None = None,
        droppable: frozenset[str] = frozenset(),
    ) -> None:
        self.ref = ref
        self.key = str(ref)
        self.served = served
        self._engine = engine = served.engine if served is not None else None
        self.signature = signature or (engine.signature if engine else Signature())
        self._takes = engine.signature if engine else Signature()
        self._check = InputCheck(self.signature, droppable).check
        takes_all = len(self._takes.inputs) == len(self.signature.inputs)
        # Returns what the version takes of what was sent, and its rows (None where axis 0 is not rows); raises
        # InvalidInput naming the tensor at fault.
        self.inputs: Callable[[TensorMap], tuple[TensorMap, int | None]] = self._check if takes_all else self._taken
        self.outputs: Sequence[str] = engine.outputs if engine else ()

    @property
    def is_known(self) -> bool:
        """Whether the version was loaded by then, so that its signature is known."""
        return self._engine is not None

    def ready(self) -> ServedVersion:
        """Return the version to call. Raises NotReady, also for one loaded since then: a newer target is on its way."""
        served = self.served
        if served is None or self._engine is None:
            raise NotReady(f"version {self.key} is not ready")
        if not served.serving:
            served.check_ready()
        return served

    def wanted(self, asked: Sequence[str]) -> Sequence[str]:
        """Return the outputs to answer: those asked for, or all. Raises InvalidInput for an unknown or repeated one."""
        if not asked:
            return self.outputs
        for index, name in enumerate(asked):
            if name not in self.outputs:
                raise InvalidInput(f"output '{name}': unknown; outputs are {names(self.signature.outputs)}")
            if name in asked[:index]:
                raise InvalidInput(f"output '{name}': asked for twice")
        return asked

    def no_rows(self, wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the answer to no rows. Raises InvalidInput where an output has rows whatever is asked."""
        answer: dict[str, Tensor] = {}
        for spec in self.signature.outputs:
            if spec.name in wanted:
                if spec.shape[:1] != (-1,):
                    raise InvalidInput(f"output '{spec.name}' has shape {list(spec.shape)}: send at least one row")
                shape = [max(axis, 0) for axis in spec.shape]
                answer[spec.name] = Tensor(spec.datatype, np.zeros(shape, spec.datatype.dtype))
        return answer

    def _taken(self, sent: TensorMap) -> tuple[TensorMap, int | None]:
        checked, _ = self._check(sent)
        taken = {spec.name: checked[spec.name] for spec in self._takes.inputs}
        return taken, rows_of(self._takes, taken)


def _strict(specs: Sequence[TensorSpec], route: Interface) -> tuple[TensorSpec, ...]:
    return tuple(
        msgspec.structs.replace(spec, nullable=False) if spec.nullable and spec.name in route.no_missing else spec
        for spec in specs
    )
