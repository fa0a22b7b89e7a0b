"""Awaits a call under a deadline, with a timer only if the call has to wait for something.

A quick model answers inside the loop's turn: then a timer and a task would cost more than the model.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from turnout.core.clock import Deadline
from turnout.core.errors import DeadlineExceeded

T = TypeVar("T")


async def within(deadline: Deadline, call: Coroutine[Any, Any, T]) -> T:
    """Return what `call` returns. Raises DeadlineExceeded when the deadline passes first, cancelling the call.

    A call that did not wait is measured against the deadline afterwards.
    """
    try:
        waits_for = call.send(None)
    except StopIteration as ended:
        result: T = ended.value
    else:
        scope = asyncio.timeout(deadline.left_s)
        try:
            async with scope:
                result = await _Rest(call, waits_for)
        except TimeoutError:
            if not scope.expired():
                raise  # the model's own
            raise DeadlineExceeded("the deadline passed while the model ran") from None
    if deadline.passed:
        raise DeadlineExceeded("the deadline passed while the model ran")
    return result


class _Rest(Generic[T]):
    """What is left of a coroutine that was started by hand. It can be awaited once."""

    __slots__ = ("_call", "_waits_for")

    def __init__(self, call: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._call = call
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            while True:
                try:
                    woken = yield self._waits_for
                except BaseException as error:  # noqa: BLE001  a cancellation belongs where the call waits
                    self._waits_for = self._call.throw(error)
                else:
                    self._waits_for = self._call.send(woken)
        except StopIteration as ended:
            result: T = ended.value
            return result
