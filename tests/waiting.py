"""Waits for what a test expects, with a deadline: the only way in which tests wait."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

_LOOK_EVERY_S: Final = 0.02


class NotInTime(AssertionError):
    """What a test waited for did not come."""


def eventually(predicate: Callable[[], T], within_s: float = 10.0, what: str = "") -> T:
    """Return the first true value of `predicate`. Raises NotInTime, with the last value, after `within_s`.

    An AssertionError of the predicate counts as not yet.
    """
    ends_s = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        value, fault = _look(predicate)
        if value:
            return value
        if time.monotonic() > ends_s:
            raise NotInTime(_message(what, within_s, value, fault)) from fault
        pause.wait(_LOOK_EVERY_S)


async def eventually_async(predicate: Callable[[], T | Awaitable[T]], within_s: float = 10.0, what: str = "") -> T:
    """Do the same on a running loop; `predicate` may be a coroutine function."""
    ends_s = time.monotonic() + within_s
    while True:
        value, fault = _look(predicate)
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > ends_s:
            raise NotInTime(_message(what, within_s, value, fault)) from fault
        await asyncio.sleep(_LOOK_EVERY_S)


def _look(predicate: Callable[[], T]) -> tuple[T | None, AssertionError | None]:
    try:
        return predicate(), None
    except AssertionError as error:
        return None, error


def _message(what: str, within_s: float, value: object, fault: AssertionError | None) -> str:
    return f"{what or 'the condition'} did not hold within {within_s} s; last: {fault or value!r}"
