"""Gateway processes that cannot prepare a snapshot: what is said of them, and how they are asked again later."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.parent.messages import CannotObey, Prepare
from gateway.parent.process import GatewayProcess
from gateway.parent.publication import Publication

_log = logging.getLogger(__name__)

_ASK_AGAIN_S: Final = 2.0


class Asking:
    """Who is being asked again. `told` makes the message, `is_current` tells whether a snapshot is still needed."""

    def __init__(self, told: Callable[[Publication], Prepare], is_current: Callable[[Publication], bool]) -> None:
        self._told = told
        self._is_current = is_current
        self._tasks: dict[GatewayProcess, asyncio.Task[None]] = {}

    def __contains__(self, process: GatewayProcess) -> bool:
        """Tell whether a process is to be asked again."""
        return process in self._tasks

    def ask(self, process: GatewayProcess, publication: Publication) -> None:
        """Have a process prepare a snapshot, in a moment."""
        self._tasks[process] = asyncio.create_task(self._ask(process, publication))

    def forget(self, process: GatewayProcess) -> None:
        """Ask a process nothing more: it has ended."""
        if (task := self._tasks.pop(process, None)) is not None:
            task.cancel()

    async def _ask(self, process: GatewayProcess, publication: Publication) -> None:
        await asyncio.sleep(_ASK_AGAIN_S)
        del self._tasks[process]
        if not self._is_current(publication):
            return
        try:
            await asyncio.to_thread(publication.store)
        except OSError as error:
            _log.error("generation %d cannot be stored: %s", publication.snapshot.generation, error)
        process.send(self._told(publication))


def is_of(publication: Publication | None, generation: int) -> bool:
    """Tell whether a publication is of a generation."""
    return publication is not None and publication.snapshot.generation == generation


def cannot(process: GatewayProcess, publication: Publication) -> bool:
    """Tell whether a process has said that it cannot prepare this."""
    return process.cannot is not None and is_of(publication, process.cannot.generation)


def refusal(process: GatewayProcess, message: CannotObey) -> str:
    """Return what operators read of that."""
    return f"generation {message.generation}: gateway process {process.pid} cannot obey it: {message.reason}"
