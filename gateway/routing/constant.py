"""A route's declared constant answer: one element a row, the last of its fallbacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Tensor


class Constant:
    """The declared values as one row of tensors, typed by the route's outputs where a version has told them.

    Raises InvalidInput for a value that its output cannot hold.
    """

    def __init__(self, values: Mapping[str, Any], outputs: Sequence[TensorSpec]) -> None:
        specs = {spec.name: spec for spec in outputs}
        self._row = {name: _row(name, value, specs.get(name)) for name, value in values.items()}

    def answer(self, asked: Sequence[str], rows: int) -> dict[str, Tensor]:
        """Return `rows` times the row. Raises InvalidInput when asked for an output that was not declared."""
        for name in asked:
            if name not in self._row:
                raise InvalidInput(f"output '{name}': the route's fallback value has none")
        return {
            name: Tensor(self._row[name].datatype, np.repeat(self._row[name].array, rows, axis=0))
            for name in asked or self._row
        }


def _row(name: str, value: Any, spec: TensorSpec | None) -> Tensor:
    if spec is None:
        return Tensor.of(np.asarray([value]))
    shape = (1, *np.shape(value))
    return json_tensor.decode(name, spec.datatype, shape, msgspec.json.encode([value]))
