"""The classification extension: an output as its best elements, each row a list of `value:index` (FIELD 4.5)."""

import math
from typing import Final

import numpy as np

from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.request import Parameter
from turnout.core.tensor import Datatype, Tensor

PARAMETER: Final = "classification"


def class_count(output: str, value: Parameter) -> int:
    """Return how many classes an output's parameter asks for. Raises InvalidInput unless a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"output '{output}': parameter classification must be a whole number from 1 up")
    return value


def classify(name: str, tensor: Tensor, count: int) -> Tensor:
    """Return the `count` greatest elements of each row, greatest first, as BYTES `[rows, count]` of `value:index`.

    Of equal values the lower index comes first. No version declares labels, so none follow. Raises InvalidInput for
    BOOL and BYTES, ModelFault for a value that is not finite.
    """
    if tensor.datatype in (Datatype.BYTES, Datatype.BOOL):
        raise InvalidInput(f"output '{name}': {tensor.datatype} cannot be classified, its values have no order")
    width = math.prod(tensor.shape[1:])
    rows = tensor.array.reshape((tensor.rows, width))
    if tensor.datatype.is_float and not np.isfinite(rows).all():
        raise ModelFault(f"tensor '{name}': a value of the answer is not finite and has no order")
    # Reversed twice, so that the stable ascending sort leaves the lower of two equal indices in front.
    order = width - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, : min(count, width)]
    texts = np.empty(order.shape, dtype=object)
    for (row, place), index in np.ndenumerate(order):
        texts[row, place] = f"{rows[row, index]!s}:{index}".encode()
    return Tensor(Datatype.BYTES, texts)
