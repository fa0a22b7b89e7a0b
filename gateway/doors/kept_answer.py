"""An answer as its door writes it: written when the router asks, kept until it is sent. Knows nothing of a request.

A request holds on to this object. If this held on to the request as well, the two would have to wait for the garbage
collector, with all tensors.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from turnout.core.request import Prediction

Written = TypeVar("Written")


class KeptAnswer(Generic[Written]):
    """Calls `write`, which must not know the request, once for each candidate answer; keeps the last."""

    __slots__ = ("_prediction", "_write", "_written")

    def __init__(self, write: Callable[[Prediction], Written]) -> None:
        self._write = write
        self._prediction: Prediction | None = None
        self._written: Written

    def __call__(self, prediction: Prediction) -> None:
        """Write a candidate, as `PredictRequest.encode` says."""
        self._written = self._write(prediction)
        self._prediction = prediction

    def of(self, prediction: Prediction) -> Written:
        """Return what was written for this very prediction; writes it if nobody has."""
        if self._prediction is not prediction:
            self(prediction)
        return self._written
