"""A worker supervised as the parent does it, and what its supervisor said."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from adapters.interface import ModelSource
from adapters.worker.model import WorkerModel
from adapters.worker.supervisor import SupervisorState, WorkerSupervisor
from tests.waiting import eventually_async
from turnout.core.clock import Deadline
from turnout.core.request import CallContext
from turnout.core.tensor import Tensor

READY_S = 30.0


class Supervised:
    """A supervisor with its states, in order."""

    def __init__(self, source: ModelSource, runtime: str) -> None:
        self.source = source
        self.states: list[tuple[SupervisorState, str]] = []
        self.supervisor = WorkerSupervisor(
            source,
            runtime,
            starts=asyncio.Semaphore(2),
            on_state=lambda state, reason: self.states.append((state, reason)),
        )

    @property
    def state(self) -> SupervisorState:
        """The last state."""
        return self.states[-1][0]

    @property
    def reason(self) -> str:
        """The reason of the last state."""
        return self.states[-1][1]

    async def becomes(self, state: SupervisorState) -> None:
        """Wait for a state."""

        def arrived():
            assert self.states
            assert self.state is state, self.states
            return True

        await eventually_async(arrived, READY_S)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the worker and return its process id."""
        pid = self.supervisor.pid
        assert pid is not None
        os.kill(pid, number)
        return pid


@asynccontextmanager
async def supervised(source: ModelSource, runtime: str, *, ready: bool = True) -> AsyncIterator[Supervised]:
    """Supervise a worker, from `ready` on if asked, and stop it."""
    worker = Supervised(source, runtime)
    await worker.supervisor.start()
    try:
        if ready:
            await worker.becomes(SupervisorState.READY)
        yield worker
    finally:
        await worker.supervisor.stop(0)


@asynccontextmanager
async def connected(source: ModelSource) -> AsyncIterator[WorkerModel]:
    """Connect to a worker as a gateway process does, and leave it."""
    model = await WorkerModel.connect(source, within_s=READY_S)
    try:
        yield model
    finally:
        await model.close()


def context(seconds: float = 20.0) -> CallContext:
    """Return the surroundings of a call."""
    return CallContext("test", Deadline.after(seconds))


def held(x: float, hold_ms: int = 0) -> dict[str, Tensor]:
    """Return a row for the model of `tests.contract.worker_models`."""
    return {"x": Tensor.of(np.array([x], np.float64)), "hold_ms": Tensor.of(np.array([hold_ms]))}


def alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  a pseudo-file
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
