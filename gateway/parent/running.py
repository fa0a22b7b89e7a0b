"""A gateway machine from its start until its end: the jobs that run beside each other, and the order of leaving."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.config import GatewayConfig
from gateway.http_server import HttpServer
from gateway.parent import last_good
from gateway.parent.control_client import ControlClient, Offer
from gateway.parent.control_process import ControlProcess
from gateway.parent.failure import CannotStart
from gateway.parent.fleet import Fleet
from gateway.parent.follow import Follow, Position
from gateway.parent.guard import Guard
from gateway.parent.machine import Machine
from gateway.parent.ports import Ports
from gateway.parent.reports import Reports
from gateway.parent.state_folder import StateFolder
from gateway.parent.workers import Workers
from gateway.parent.zombies import reap_orphans
from turnout.core.snapshot import Snapshot

_log = logging.getLogger(__name__)

_FIRST_SNAPSHOT_S: Final = 10.0
_PULSE_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
# The gateway processes get this share of the drain time; the rest is for workers and control.
_PROCESSES_SHARE: Final = 0.8


class Signals:
    """SIGTERM and SIGINT: the first asks to stop, the second forces. SIGHUP asks to replace the gateway processes.

    Below a terminal SIGHUP says that it is gone, and so is whoever started this: there it is as SIGTERM, unless nohup
    was asked for.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.restart = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._hear)
        stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or not _has_terminal()
        loop.add_signal_handler(signal.SIGHUP, self.restart.set if stays else self._hear)

    def _hear(self) -> None:
        if self.stop.is_set():
            self.force.set()
        self.stop.set()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Parts(msgspec.Struct, frozen=True):
    """Everything that a running parent consists of; `control_process` is None when control runs elsewhere.

    `say` tells the operator a line and never waits.
    """

    config: GatewayConfig
    state: StateFolder
    ports: Ports
    control_process: ControlProcess | None
    client: ControlClient
    workers: Workers
    fleet: Fleet
    machine: Machine
    reports: Reports
    follow: Follow
    admin: HttpServer
    guard: Guard
    changed: asyncio.Event
    say: Callable[[str], None]


async def serve(parts: Parts, signals: Signals) -> int:
    """Run until a signal, then drain; return the exit status. Raises what ended a job that never ends by itself."""
    jobs = [
        parts.fleet.keep(),
        parts.machine.keep_tidy(),
        _pulse(parts),
        _follow_control(parts),
        _restart_when_asked(parts, signals),
        parts.reports.keep(),
        parts.guard.keep(),
    ]
    if parts.control_process is not None:
        jobs.append(parts.control_process.keep())
    if os.getpid() == 1:
        jobs.append(reap_orphans())
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        if await first_of(signals.stop, *tasks):
            await _raise_end(tasks)
        parts.say(f"draining: at most {parts.config.drain_seconds:g} s; a second signal ends it at once")
        draining = asyncio.create_task(_drain(parts, tasks))
        if await first_of(signals.force, draining):
            await draining
            parts.say("stopped")
            return 0
        draining.cancel()
        parts.say("stopped before the drain was over: a second signal came")
        return 1
    finally:
        await _end(tasks)


async def first_of(event: asyncio.Event, *tasks: "asyncio.Task[Any]") -> bool:
    """Wait for the event or the end of a task; tell whether a task came first."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return not event.is_set()


async def _raise_end(tasks: list["asyncio.Task[None]"]) -> None:
    failure = next(task.exception() for task in tasks if task.done())
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    raise failure or CannotStart("a part of the parent ended by itself")


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(parts: Parts, tasks: list["asyncio.Task[None]"]) -> None:
    """Go in the order that loses nothing: not ready, calls in flight, workers, control."""
    seconds = parts.config.drain_seconds
    parts.machine.leave()
    parts.ports.http.close()
    await parts.fleet.drain(seconds * _PROCESSES_SHARE)
    await _end(tasks)
    await parts.workers.stop(seconds * (1 - _PROCESSES_SHARE))
    if parts.control_process is not None:
        await parts.control_process.stop()
    await parts.admin.stop(_PULSE_S)


async def _restart_when_asked(parts: Parts, signals: Signals) -> None:
    """Replace the gateway processes when a signal or a wish in STATE asks for it; tell how it went."""
    wish = parts.state.restart
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signals.restart.wait(), _PULSE_S)
        if not signals.restart.is_set() and not wish.is_wanted():
            continue
        signals.restart.clear()
        parts.say("replacing the gateway processes, one after the other")
        reason = await parts.fleet.restart()
        parts.say(f"replacing was given up: {reason}" if reason else "all gateway processes are replaced")
        wish.settle(reason)


async def _follow_control(parts: Parts) -> None:
    """Start with control's snapshot, or without it in time with the last good one; then follow."""
    kept = await asyncio.to_thread(last_good.read, parts.state.last_good)
    if kept is not None:
        parts.follow.position = Position.of(*kept)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(parts.follow.run())
        await _first_answer(parts)
        if kept is not None and not parts.follow.taken:
            _log.warning("starting from the last good snapshot, generation %d", kept[0].generation)
            await _take_kept(parts, *kept)


async def _take_kept(parts: Parts, snapshot: Snapshot, data: bytes) -> None:
    """Take the last good snapshot; while the state folder cannot be written, again and again, until control comes."""
    pause_s = _FIRST_PAUSE_S
    while not parts.follow.taken:
        try:
            await parts.machine.take(Offer(snapshot, data, None))
        except OSError as error:
            reason = f"state folder {parts.state.root} (--state) cannot be used: {error.strerror or error}"
            _log.error("the last good snapshot cannot be taken: %s; next try in %g s", reason, pause_s)
            parts.machine.hinder(reason)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
        else:
            break
    parts.machine.hinder("")


async def _first_answer(parts: Parts) -> None:
    """Wait for control: an embedded one is just starting, another one may well be down."""
    waits = [asyncio.create_task(parts.follow.answered.wait())]
    if parts.control_process is None:
        waits.append(asyncio.create_task(parts.follow.failed.wait()))
    await asyncio.wait(waits, timeout=_FIRST_SNAPSHOT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()


async def _pulse(parts: Parts) -> None:
    """Look again whenever something has changed, and now and then because time has passed."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(parts.changed.wait(), _PULSE_S)
        parts.changed.clear()
        parts.machine.update()
        parts.reports.due.set()
