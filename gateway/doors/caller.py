"""The one who waits for an answer: a caller that leaves, or is too slow, ends the work under way for it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final, TypeAlias, TypeVar

from turnout.core.errors import Cancelled, DeadlineExceeded, TurnoutError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
Result = TypeVar("Result")

# Our own protocol class offers this scope extension: a function that takes whom to tell when the connection is lost,
# so that a prediction needs no task of its own to wait for that.
LOST: Final = "turnout.lost"


class Caller:
    """Belongs to the task that serves one request; `gone` once nobody is left to answer."""

    __slots__ = ("_task", "_why", "gone")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._why: TurnoutError | None = None
        self.gone = False

    def left(self) -> None:
        """The connection is lost: end the work."""
        self.gone = True
        self._end(Cancelled("the caller left"))

    def late(self) -> None:
        """The body takes too long: end the work."""
        self._end(DeadlineExceeded("the request body did not arrive in time"))

    def why(self) -> TurnoutError | None:
        """Return why the task was cancelled, and take the cancellation back; None when it was not us."""
        if self._why is not None:
            self._task.uncancel()
        return self._why

    async def awaits(self, scope: Scope, receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work`, cancelled as soon as the caller leaves. Raises CancelledError then."""
        extensions = scope.get("extensions")
        register = extensions.get(LOST) if extensions else None
        if register is None:
            return await self._awaits_plainly(receive, work)
        register(self.left)
        try:
            return await work
        finally:
            register(None)

    async def _awaits_plainly(self, receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
        watch = asyncio.get_running_loop().create_task(self._watch(receive))
        try:
            return await work
        finally:
            watch.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left()

    def _end(self, why: TurnoutError) -> None:
        if self._why is None:
            self._why = why
            self._task.cancel()
