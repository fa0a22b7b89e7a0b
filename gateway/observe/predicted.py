"""What versions predict, as metrics: counts of classes and distributions of values. Never the inputs."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from gateway.observe.class_ledger import OTHER
from gateway.observe.value_file import Distribution, Number
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Array, TensorMap

MISSING: Final = "_missing"
_LONGEST_CLASS: Final = 64


def is_class(spec: TensorSpec) -> bool:
    """Tell whether an output is one class a row: BYTES, BOOL or integers of shape `[n]`."""
    return spec.shape == (-1,) and not spec.datatype.is_float


def is_value(spec: TensorSpec) -> bool:
    """Tell whether an output is one number a row: floats of shape `[n]`."""
    return spec.shape == (-1,) and spec.datatype.is_float


def class_name(value: Any) -> str:
    """Return a predicted class as a label value: bounded, printable text."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:_LONGEST_CLASS])


class PredictedClasses:
    """Counts the classes of one output.

    `claim` asks for a series of its own and returns all names that have one; None where that cannot be told just now.
    """

    __slots__ = ("_claim", "_counters", "_names", "_number", "_other", "_share")

    def __init__(
        self, number: Callable[[str], Number], claim: Callable[[str], frozenset[str] | None], share: int
    ) -> None:
        self._number = number
        self._claim = claim
        self._share = share
        self._counters: dict[Any, Number] = {}
        self._names: frozenset[str] = frozenset()
        self._other: Number | None = None

    def count(self, array: Array) -> None:
        """Count each element."""
        if array.size == 1:
            value = array.item()
            (self._counters.get(value) or self._new(value)).add()
            return
        for value, times in Counter(array.tolist()).items():
            self._counter(value).add(times)

    def _counter(self, value: Any) -> Number:
        counter = self._counters.get(value)
        return counter if counter is not None else self._new(value)

    def _new(self, value: Any) -> Number:
        name = class_name(value)
        if name not in self._names and len(self._names) < self._share:
            self._names = self._claim(name) or self._names
        if name in self._names:
            counter = self._number(name)
            if len(self._counters) < self._share:  # raw values that share a name must not fill the memory
                self._counters[value] = counter
            return counter
        if self._other is None:
            self._other = self._number(OTHER)
        return self._other


class PredictedValues:
    """Counts the finite values of one output."""

    __slots__ = ("_distribution",)

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution

    def count(self, array: Array) -> None:
        """Count each finite element; NaN and infinity would spoil the sum for good."""
        if array.size == 1:
            value = float(array.item())
            if -np.inf < value < np.inf:
                self._distribution.observe(value)
            return
        wide = array.astype(np.float64)
        self._distribution.observe_all(wide[np.isfinite(wide)])


class Predicted:
    """All such metrics of one version."""

    __slots__ = ("_counters",)

    def __init__(self, counters: Sequence[tuple[str, PredictedClasses | PredictedValues]]) -> None:
        self._counters = tuple(counters)

    def count(self, outputs: TensorMap) -> None:
        """Count the outputs that were answered."""
        for name, counter in self._counters:
            tensor = outputs.get(name)
            if tensor is not None and tensor.array.size:
                counter.count(tensor.array)


def bounded(bounds: Sequence[float]) -> tuple[float, ...]:
    """Return bucket bounds ascending, finite and without repeats."""
    return tuple(sorted({float(bound) for bound in bounds if np.isfinite(bound)}))
