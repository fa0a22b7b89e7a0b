"""Keeps one version's worker alive: starts it, loads it, looks whether it answers, restarts it when it is lost.

Runs in the parent. It must not predict: gateway processes talk to the worker themselves.
"""

import asyncio
import collections
import enum
import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from adapters.catalog import worker_command
from adapters.interface import LoadFailed, ModelSource
from adapters.worker import frames
from adapters.worker.channel import Channel, WorkerError
from adapters.worker.command import WorkerCommand
from adapters.worker.frames import FrameType, Part
from adapters.worker.process import WorkerProcess
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, TurnoutError
from turnout.core.signature import TensorSpec

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0  # a worker that lived so long starts over with the shortest pause
BREAKER_LOSSES: Final = 5  # so many losses within STEADY_S: the longest pause at once
PING_EVERY_S: Final = 1.0
STUCK_S: Final = 10.0
STUCK_TIMES_P99: Final = 20.0
_PINGS_KEPT: Final = 100
_CONNECT_PAUSE_S: Final = 0.02
_LAST_ERROR_S: Final = 1.0
_MAX_SOCKET_PATH_BYTES: Final = 107


class SupervisorState(enum.StrEnum):
    """State of a worker. `LOST`: it was ready, and a new one is being started. `FAILED`: it will not come."""

    STARTING = "starting"
    READY = "ready"
    LOST = "lost"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


class _Lost(Exception):
    """The worker is gone; another try may help."""


class WorkerSupervisor:
    """Owner of one version's worker process. `on_state(state, reason)` hears of every change; `restarts` counts.

    When it hears of a loss, `pause_s` says how long it is until the next try.
    """

    def __init__(
        self,
        source: ModelSource,
        runtime: str,
        *,
        starts: asyncio.Semaphore,
        on_state: Callable[[SupervisorState, str], None],
    ) -> None:
        self.restarts = 0
        self.pause_s = FIRST_PAUSE_S
        self._source = source
        self._runtime = runtime
        self._starts = starts
        self._on_state = on_state
        self._was_ready = False
        self._leaving = False
        self._process: WorkerProcess | None = None
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._quarantine: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Begin to keep the worker alive; progress comes through `on_state`."""
        if not self._leaving:
            self._task = asyncio.create_task(self._keep_alive())

    async def stop(self, grace_s: float) -> None:
        """Let the worker finish what it has for `grace_s` seconds, then end it and all that it started."""
        self._leaving = True
        await self._cancel_task()
        process, self._process = self._process, None
        if process is not None:
            if self._channel is not None and grace_s > 0:
                self._channel.tell(FrameType.DRAIN)
                await process.exits_within(grace_s)
            await self._discard(process, at_once=grace_s <= 0)
        if self._quarantine is not None:
            await asyncio.wait({self._quarantine})
        if self._endings:
            await asyncio.wait(self._endings)
        if self._quarantine is None:
            self._on_state(SupervisorState.STOPPED, "")

    def quarantine(self, reason: str) -> None:
        """Kill the worker and start no other."""
        if self._leaving:
            return
        self._leaving = True
        if self._process is not None:
            self._process.signal_group(signal.SIGKILL)
        self._on_state(SupervisorState.QUARANTINED, reason)
        self._quarantine = asyncio.create_task(self._end_at_once())

    async def _end_at_once(self) -> None:
        await self._cancel_task()
        process, self._process = self._process, None
        if process is not None:
            await self._discard(process, at_once=True)

    async def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep_alive(self) -> None:
        self._on_state(SupervisorState.STARTING, "")
        losses: collections.deque[float] = collections.deque(maxlen=BREAKER_LOSSES)
        pause_s = FIRST_PAUSE_S
        try:
            command = await self._command()
            while True:
                lived_s, reason = await self._live_once(command)
                losses.append(monotonic_s())
                if lived_s >= STEADY_S:
                    pause_s = FIRST_PAUSE_S
                if len(losses) == BREAKER_LOSSES and losses[-1] - losses[0] < STEADY_S:
                    pause_s = LONGEST_PAUSE_S
                    reason = f"{reason}; {BREAKER_LOSSES} losses within {STEADY_S:g} s"
                self.pause_s = pause_s
                self._on_state(SupervisorState.LOST, reason)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self.restarts += 1
        except LoadFailed as error:
            self._on_state(SupervisorState.FAILED, str(error))
        except Exception as error:  # noqa: BLE001  nobody awaits this task: the fault must be told
            self._on_state(SupervisorState.FAILED, f"{type(error).__name__}: {error}")

    async def _command(self) -> WorkerCommand:
        path = str(self._source.socket)
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
            raise LoadFailed(
                f"the socket's path is longer than {_MAX_SOCKET_PATH_BYTES} bytes; choose a shorter --state"
            )
        async with self._starts:
            return await worker_command(self._runtime, self._source)

    async def _live_once(self, command: WorkerCommand) -> tuple[float, str]:
        """Run one worker to its end; return how long it was ready, and what ended it. Raises LoadFailed."""
        ready_at_s: float | None = None
        try:
            async with self._starts:
                self._process = process = await self._spawn(command)
                self._channel = channel = await self._load(process, command.start_timeout_s)
            ready_at_s = monotonic_s()
            self._was_ready = True
            self._on_state(SupervisorState.READY, channel.worker)
            await self._watch(process, channel)
        except _Lost as lost:
            return (0.0 if ready_at_s is None else monotonic_s() - ready_at_s), str(lost)
        except LoadFailed as failed:
            if self._was_ready:
                return 0.0, str(failed)
            raise
        finally:
            if not self._leaving and self._process is not None:
                process, self._process = self._process, None
                await self._discard(process, at_once=True)
        raise AssertionError("a watch ends by raising")

    async def _spawn(self, command: WorkerCommand) -> WorkerProcess:
        argv = (*command.argv, "--socket", str(self._source.socket))
        try:
            self._source.scratch.mkdir(parents=True, exist_ok=True)
            return await WorkerProcess.start(self._source.name, argv, command.environment, self._source.scratch)
        except OSError as error:
            raise LoadFailed(f"its worker cannot be started: {error}") from error

    async def _load(self, process: WorkerProcess, within_s: float) -> Channel:
        """Have the worker load the model. Raises _Lost where a signal ended it, else LoadFailed with the reason."""
        deadline = Deadline.after(within_s)
        loading = asyncio.create_task(self._ask_to_load(deadline))
        try:
            await asyncio.wait({loading, process.exited}, return_when=asyncio.FIRST_COMPLETED)
            if process.exited.done() and not loading.done():
                await asyncio.wait({loading}, timeout=_LAST_ERROR_S)  # its ERROR may still be on the way
            if loading.done() and not loading.cancelled():
                return loading.result()
        except WorkerError as error:
            raise LoadFailed(error.message) from error
        except DeadlineExceeded as error:
            raise LoadFailed(f"its worker has not loaded it within {within_s:g} s") from error
        except (TurnoutError, OSError) as error:
            await process.exits_within(_LAST_ERROR_S)
            if not process.exited.done():
                raise LoadFailed(f"its worker: {error}") from error
        finally:
            loading.cancel()
        if process.exited.result() < 0:
            raise _Lost(process.fate())
        raise LoadFailed(f"its worker {process.fate()}")

    async def _ask_to_load(self, deadline: Deadline) -> Channel:
        assert self._source.socket is not None
        while True:
            try:
                channel = await Channel.open(self._source.socket, "parent", lambda _reason, _calls: None, deadline)
                break
            except (FileNotFoundError, ConnectionError, BlockingIOError):
                if deadline.passed:
                    raise DeadlineExceeded("the worker does not listen") from None
                await asyncio.sleep(_CONNECT_PAUSE_S)
        try:
            await channel.call(FrameType.LOAD, load_parts(self._source), deadline)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _watch(self, process: WorkerProcess, channel: Channel) -> None:
        """Ping until the worker is gone or stuck. Raises _Lost with the reason."""
        pings = asyncio.create_task(_ping(channel))
        try:
            await asyncio.wait({pings, process.exited}, return_when=asyncio.FIRST_COMPLETED)
            if not process.exited.done():
                await process.exits_within(0 if pings.result().startswith("stuck") else _LAST_ERROR_S)
            raise _Lost(process.fate() if process.exited.done() else pings.result())
        finally:
            pings.cancel()

    async def _discard(self, process: WorkerProcess, *, at_once: bool) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        ending = asyncio.create_task(process.end(at_once=at_once))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        await asyncio.shield(ending)  # whoever stops us meanwhile must not leave a process behind
        if self._source.socket is not None:
            self._source.socket.unlink(missing_ok=True)


async def _ping(channel: Channel) -> str:
    """Ping each second until an answer does not come; return why."""
    durations: collections.deque[float] = collections.deque(maxlen=_PINGS_KEPT)
    while True:
        ordered = sorted(durations)
        p99_s = ordered[len(ordered) * 99 // 100] if ordered else 0.0
        limit_s = max(STUCK_S, STUCK_TIMES_P99 * p99_s)
        asked_s = monotonic_s()
        try:
            await channel.call(FrameType.PING, None, Deadline.after(limit_s))
        except DeadlineExceeded:
            return f"stuck: no answer for {limit_s:.0f} s"
        except (TurnoutError, WorkerError) as error:
            return str(error)
        durations.append(monotonic_s() - asked_s)
        await asyncio.sleep(PING_EVERY_S)


def load_parts(source: ModelSource) -> list[Part]:
    """Return the payload of LOAD."""
    artifact = os.path.relpath(source.directory / source.artifact, source.directory)
    options = [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in source.options.items()]
    parts = [
        frames.text("directory", str(source.directory)),
        frames.text("artifact", artifact),
        frames.table("options", options, 2),
    ]
    for name, specs in (("inputs", source.declared.inputs), ("outputs", source.declared.outputs)):
        if specs is not None:
            parts.append(frames.table(name, list(_rows(specs)), 3))
    for name, tensor in (source.samples or {}).items():
        parts.append(Part(f"sample.{name}", tensor.datatype, tensor.shape, tensor.raw()))
    return parts


def _rows(specs: Iterable[TensorSpec]) -> Iterable[Sequence[str]]:
    return ((spec.name, spec.datatype, frames.shape_text(spec.shape)) for spec in specs)
