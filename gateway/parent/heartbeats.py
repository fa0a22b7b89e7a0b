"""Watches the heartbeats of gateway processes; which are watched, and until when, is the fleet's word."""

import asyncio
from collections.abc import Callable, Collection

from gateway.parent.messages import HEARTBEAT_S
from gateway.parent.process import GatewayProcess
from turnout.core import clock


async def watch(processes: Callable[[], Collection[GatewayProcess]]) -> None:
    """Kill processes that are silent for too long, until cancelled."""
    while True:
        before_s = clock.monotonic_s()
        await asyncio.sleep(HEARTBEAT_S)
        # The parent itself was stopped: it has heard nobody.
        late = clock.monotonic_s() - before_s > 2 * HEARTBEAT_S
        for process in processes():
            if late:
                process.forgive_silence()
            process.check_heartbeat()
