"""A load client that keeps a schedule: requests are sent when they are due, whatever became of those before.

Latency runs from the scheduled instant. One process, prebuilt requests, raw sockets on uvloop: several thousand a
second cost a fraction of a core. It tells how late it sent; a run whose schedule was not kept says nothing.

`python -m bench.open_loop PLAN.json RESULT.npz` runs a plan; `Plan` says what stands in it.
"""

import asyncio
import contextlib
import gc
import resource
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import uvloop

from bench.raw_calls import ODD, OK, Ended, GrpcConnection, HttpConnection

_TICK_S: Final = 0.0005
_LAST_S: Final = 10.0  # so long answers are waited for at the end


class Phase(msgspec.Struct, frozen=True):
    """Arrivals at `rate` a second for `seconds`, at random instants; or, with `callers`, so many asking in turn."""

    seconds: float
    rate: float = 0.0
    callers: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What to send where: `requests` are the prebuilt bytes, of which each arrival draws one."""

    door: str
    address: str
    requests: list[bytes]
    phases: list[Phase]
    connections: int
    seed: int


class Connection(Protocol):
    """One connection; `free` tells how many requests more it takes, `leaving` that it is to take none."""

    free: int
    leaving: bool

    def send(self, number: int, request: bytes) -> None:
        """Send a request; `done` of the run hears how it ended."""


class Run:
    """The arrivals of a plan, and what became of each."""

    def __init__(self, plan: Plan) -> None:
        draw = np.random.default_rng(plan.seed)
        due: list[Any] = []
        start = 0.0
        for phase in plan.phases:
            count = draw.poisson(phase.rate * phase.seconds)
            due.append(start + np.sort(draw.uniform(0.0, phase.seconds, count)))
            start += phase.seconds
        self.due = np.concatenate(due)
        self.kind = draw.integers(0, len(plan.requests), len(self.due))
        self.sent = np.full(len(self.due), np.nan)
        self.done = np.full(len(self.due), np.nan)
        self.outcome = np.zeros(len(self.due), np.uint8)
        self.ends_s = start
        self._plan = plan
        self._next = 0
        self._began_s = 0.0
        self._idle: deque[Connection] = deque()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Open the connections, keep the schedule, wait for the last answers."""
        for _ in range(self._plan.connections):
            await self._connect()
        gc.disable()
        self._began_s = time.monotonic()
        while self._next < len(self.due):
            self._send_due()
            await asyncio.sleep(_TICK_S)
        end_s = time.monotonic() + _LAST_S
        while self._open and time.monotonic() < end_s:
            await asyncio.sleep(_TICK_S)

    def ended(self, connection: Connection, number: int, outcome: int) -> None:
        """Take note of an answer."""
        self.done[number] = time.monotonic() - self._began_s
        self.outcome[number] = outcome
        self._open -= 1
        if connection.free == 1:  # it had no room before
            self._idle.append(connection)

    async def _connect(self) -> None:
        self._idle.append(await connected(self._plan, self.ended))

    def _replace(self) -> None:
        """Put a fresh connection in the place of one that leaves."""
        self._idle.pop()
        task = asyncio.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send_due(self) -> None:
        now_s = time.monotonic() - self._began_s
        requests = self._plan.requests
        while self._next < len(self.due) and self.due[self._next] <= now_s and self._idle:
            connection = self._idle[-1]  # the one that was used last, as pools of clients do
            if connection.leaving:
                self._replace()
                continue
            number = self._next
            self._next += 1
            self.sent[number] = now_s
            self._open += 1
            connection.send(number, requests[self.kind[number]])
            if not connection.free:
                self._idle.pop()
            elif self._plan.door == "grpc":
                self._idle.rotate()


class Closed:
    """So many callers that ask one after another, for some seconds: what a server can do."""

    def __init__(self, plan: Plan) -> None:
        self.answered = 0
        self._plan = plan
        self._ends_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> float:
        """Return the good answers a second."""
        connections = [await connected(self._plan, self.ended) for _ in range(self._plan.phases[0].callers)]
        seconds = self._plan.phases[0].seconds
        self._ends_s = time.monotonic() + seconds
        for connection in connections:
            connection.send(0, self._plan.requests[-1])
        await asyncio.sleep(seconds)
        return self.answered / seconds

    def ended(self, connection: Connection, _: int, outcome: int) -> None:
        """Count an answer and ask again."""
        if time.monotonic() < self._ends_s:
            self.answered += outcome == OK
            if connection.leaving:
                task = asyncio.create_task(self._go_on())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                connection.send(0, self._plan.requests[-1])

    async def _go_on(self) -> None:
        (await connected(self._plan, self.ended)).send(0, self._plan.requests[-1])


async def connected(plan: Plan, ended: Ended) -> Connection:
    """Return an open connection."""
    host, _, port = plan.address.rpartition(":")
    make: Any = HttpConnection if plan.door == "http" else GrpcConnection
    _, connection = await asyncio.get_running_loop().create_connection(lambda: make(ended), host, int(port))
    await connection.ready()
    opened: Connection = connection
    return opened


async def _main(plan: Plan, result: Path) -> None:
    if plan.phases[0].callers:
        np.savez(result, rate=await Closed(plan).run())
        return
    before_s = time.process_time()
    run = Run(plan)
    with contextlib.suppress(KeyboardInterrupt):
        await run.run()
    np.savez(
        result,
        due=run.due,
        kind=run.kind,
        sent=run.sent,
        done=run.done,
        outcome=run.outcome,
        odd=[f"{count} x {said}" for said, count in (+ODD).items()],
        busy=(time.process_time() - before_s) / run.ends_s,
    )


def main() -> None:
    """Run the plan."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(plan, Path(sys.argv[2])))


if __name__ == "__main__":
    main()
