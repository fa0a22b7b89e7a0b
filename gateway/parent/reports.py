"""Tells control how far this machine is: one report after the other, so that none is overtaken by an older one."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from gateway.parent.control_client import ControlClient, ControlUnreachable
from turnout.core import clock
from turnout.core.report import GatewayReport

_AT_LEAST_EVERY_S: Final = 2.0


class Reports:
    """Sends what `report` returns at that time."""

    def __init__(self, control: ControlClient, report: Callable[[], GatewayReport]) -> None:
        self.due = asyncio.Event()
        self._control = control
        self._report = report
        self._turn = asyncio.Lock()
        self._told: GatewayReport | None = None
        self._told_s = 0.0

    async def keep(self) -> None:
        """Tell control what has changed whenever one is due, and now and then that this machine lives."""
        while True:
            await self.due.wait()
            self.due.clear()
            await self.send()

    async def send(self) -> None:
        """Tell control what has changed; no matter if it is out of reach, the next one follows."""
        async with self._turn:
            report = self._report()
            if report == self._told and clock.monotonic_s() - self._told_s < _AT_LEAST_EVERY_S:
                return
            with contextlib.suppress(ControlUnreachable):
                await self._control.report(report)
                self._told, self._told_s = report, clock.monotonic_s()
