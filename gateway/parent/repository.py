"""Carries callers' repository calls from a gateway process to control, and the outcome back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.parent.control_client import ControlClient
from gateway.parent.messages import RepositoryAnswer, RepositoryCall
from gateway.parent.process import GatewayProcess
from turnout.core.errors import ErrorCode
from turnout.core.ids import is_name

_AT_ONCE: Final = 16


class RepositoryCalls:
    """Repository calls under way; one beyond the bound is turned away.

    `before_load` is called with the process that was asked and the model's name, before control is asked to load it;
    if it returns why the model cannot be loaded, control is not asked.
    """

    def __init__(self, control: ControlClient, before_load: Callable[[GatewayProcess, str], Awaitable[str]]) -> None:
        self._control = control
        self._before_load = before_load
        self._tasks: set[asyncio.Task[None]] = set()

    def forward(self, process: GatewayProcess, call: RepositoryCall) -> None:
        """Ask control and send its answer to the process."""
        if len(self._tasks) >= _AT_ONCE:
            process.send(RepositoryAnswer(call.call, ErrorCode.OVERLOADED, "too many repository calls at once"))
            return
        task = asyncio.create_task(self._ask(process, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, process: GatewayProcess, call: RepositoryCall) -> None:
        if not is_name(call.name):
            message = f"Request for unknown model: '{call.name}' is not found"
            process.send(RepositoryAnswer(call.call, ErrorCode.NOT_FOUND, message))
            return
        failure = await self._before_load(process, call.name) if call.action == "load" else ""
        if failure:
            process.send(RepositoryAnswer(call.call, ErrorCode.INVALID_INPUT, failure))
            return
        code, message = await self._control.repository(call.action, call.name)
        process.send(RepositoryAnswer(call.call, code, message))
