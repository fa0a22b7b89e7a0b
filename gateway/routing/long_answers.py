"""Answers that take long to write: on threads of their own, so that neither the loop nor a load waits behind them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded, Overloaded
from turnout.core.request import Prediction, PredictRequest

_THREADS: Final = 2
# Each holds its tensors while it waits.
WAITING: Final = 64


class LongAnswers:
    """Has doors write on threads; at most `WAITING` answers are being written or wait for that."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "turnout-answer")
        self._waiting = 0

    async def written(
        self,
        write: Callable[[Prediction, PredictRequest], Prediction],
        prediction: Prediction,
        request: PredictRequest,
        deadline: Deadline,
    ) -> Prediction:
        """Return what `write` returns. Raises Overloaded, DeadlineExceeded, and what `write` raises.

        What nobody waits for any more is not begun.
        """
        if self._waiting >= WAITING:
            raise Overloaded(f"{self._waiting} long answers are being written already")
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline.left_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, write, prediction, request)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the answer was written") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let the threads go once they are idle."""
        self._threads.shutdown(wait=False)
