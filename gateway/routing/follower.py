"""Obeys the parent: prepares snapshots, swaps on commit, drains what left, and reports."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from gateway.parent.messages import (
    CannotObey,
    Commit,
    Drain,
    FromProcess,
    MachineReady,
    Prepare,
    Report,
    RepositoryAnswer,
    RepositoryCall,
    ToProcess,
    WorkerGone,
)
from gateway.routing.router import Router
from gateway.routing.table import Slices, compiled
from gateway.serving.pool import Pool
from gateway.serving.served_version import Failure, ServedVersion
from gateway.serving.stages import Stage
from turnout.core import errors
from turnout.core.errors import DeadlineExceeded, ErrorCode, Internal, TurnoutError
from turnout.core.snapshot import Snapshot, decode

_LOG: Final = logging.getLogger(__name__)

REPOSITORY_S: Final = 300.0
REPORT_WAIT_S: Final = 0.0001  # for each version
MAX_REPORT_WAIT_S: Final = 0.1
_PREPARED_AT_ONCE: Final = 2  # a newer snapshot may be prepared while the older one's commit is on its way
_REPOSITORY_ERRORS: Final[dict[ErrorCode, type[TurnoutError]]] = {
    error.code: error
    for error in (
        errors.Conflict,
        errors.DeadlineExceeded,
        errors.Forbidden,
        errors.InvalidInput,
        errors.NotFound,
        errors.NotReady,
        errors.Overloaded,
    )
}


class Follower:
    """This process's side of the messages with the parent. `send` must not block."""

    def __init__(self, pool: Pool, router: Router, send: Callable[[FromProcess], None]) -> None:
        self.machine_ready = False
        self.draining = False
        self._pool = pool
        self._router = router
        self._send = send
        self._prepared: list[Snapshot] = []
        self._compiling = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._is_outdated = False
        self._report_due: asyncio.TimerHandle | None = None
        self._reported = 0
        self._calls: dict[int, asyncio.Future[RepositoryAnswer]] = {}
        self._call_numbers = itertools.count(1)
        pool.watch(self._changed)

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot whose routes are obeyed."""
        return self._router.table.snapshot if self._router.table is not None else None

    async def handle(self, message: ToProcess) -> None:
        """Obey one message; loading goes on in the background, and each step of it is reported."""
        match message:
            case Prepare():
                await self._prepare(message)
            case Commit(generation):
                await self._commit(generation)
            case WorkerGone(version, reason, quarantined):
                self._pool.fail(version, Failure(reason, quarantined))
            case MachineReady():
                self.machine_ready = True
            case Drain(relieved=relieved):
                # Whoever is relieved leaves a machine behind that is as ready as before.
                self.draining = not relieved
            case RepositoryAnswer():
                waiting = self._calls.get(message.call)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)

    async def repository(self, action: str, name: str) -> None:
        """Have model `name` loaded or unloaded, and wait until that took effect.

        Raises what control refuses it with, DeadlineExceeded after 300 s.
        """
        number = next(self._call_numbers)
        waiting: asyncio.Future[RepositoryAnswer] = asyncio.get_running_loop().create_future()
        self._calls[number] = waiting
        try:
            self._send(RepositoryCall(number, action, name))
            async with asyncio.timeout(REPOSITORY_S):
                answer = await waiting
        except TimeoutError:
            raise DeadlineExceeded(
                f"'{name}': no answer within {REPOSITORY_S:.0f} s; it may still take effect"
            ) from None
        finally:
            del self._calls[number]
        if answer.code:
            raise _REPOSITORY_ERRORS.get(ErrorCode(answer.code), Internal)(answer.message)

    async def _prepare(self, message: Prepare) -> None:
        try:
            snapshot = decode(await asyncio.to_thread(Path(message.snapshot_path).read_bytes))
        except (OSError, msgspec.MsgspecError) as error:
            self._cannot_obey(message.generation, f"the snapshot cannot be read: {error}")
            return
        slices = Slices()
        problems = {
            version: Failure(reason, version in message.quarantined) for version, reason in message.problems.items()
        }
        for entry in sorted(snapshot.versions, key=lambda entry: str(entry.ref) in message.alone):
            self._pool.hold((entry,), message.directories, message.sockets, problems, message.alone)
            await slices.cut()
        kept = [known for known in self._prepared if known.generation != snapshot.generation]
        self._prepared = [*kept, snapshot][-_PREPARED_AT_ONCE:]
        self._pool.keep(self._held_keys())
        self._report_soon()

    async def _commit(self, generation: int) -> None:
        snapshot = next((known for known in self._prepared if known.generation == generation), None)
        if snapshot is None:
            self._cannot_obey(generation, "it was not prepared")
            return
        try:
            async with self._compiling:
                await self._swap(snapshot)
        except ValueError as error:
            self._cannot_obey(generation, f"its routes cannot be followed: {error}")
            return
        self._router.metrics.snapshot_generation().set(generation)
        del self._prepared[: self._prepared.index(snapshot) + 1]
        self._pool.keep(self._held_keys())
        self._report_soon()

    async def _swap(self, snapshot: Snapshot) -> None:
        """Compile, then swap in one step. `_compiling` must be held: a table starts from the one before."""
        self._is_outdated = False
        self._router.swap(await compiled(snapshot, self._pool, self._router.metrics, self._router.table))

    async def _refresh(self) -> None:
        """Bring versions that became ready into the obeyed routes; only then is it told that they are."""
        try:
            while self._is_outdated:
                async with self._compiling:
                    if self.snapshot is not None:
                        await self._swap(self.snapshot)
                self._report()
        finally:
            self._refreshing = None

    def _cannot_obey(self, generation: int, reason: str) -> None:
        _LOG.error("generation %d: %s", generation, reason)
        self._send(CannotObey(generation, reason))

    def _held_keys(self) -> set[str]:
        obeyed = [self.snapshot] if self.snapshot is not None else []
        return {str(entry.ref) for snapshot in (*obeyed, *self._prepared) for entry in snapshot.versions}

    def _changed(self, served: ServedVersion) -> None:
        if self._pool.get(served.key) is not served:
            return  # it is on its way out
        if self.snapshot is not None and served.stage is Stage.READY:
            self._is_outdated = True
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh())
        self._report_soon()

    def _report_soon(self) -> None:
        if self._report_due is None:
            # A report names every version: the more there are, the more changes go into one.
            wait_s = min(MAX_REPORT_WAIT_S, REPORT_WAIT_S * self._reported)
            self._report_due = asyncio.get_running_loop().call_later(wait_s, self._report_unless_refreshing)

    def _report_unless_refreshing(self) -> None:
        self._report_due = None
        if self._refreshing is None:
            self._report()

    def _report(self) -> None:
        if self._report_due is not None:
            self._report_due.cancel()
            self._report_due = None
        versions = {served.key: served.report() for served in self._pool.versions()}
        self._reported = len(versions)
        obeyed = self.snapshot
        held = 0
        for snapshot in (*([obeyed] if obeyed is not None else []), *self._prepared):
            known = [versions.get(str(entry.ref)) for entry in snapshot.versions]
            if all(report is not None and report.state.tried for report in known):
                held = snapshot.generation
        self._send(Report(obeyed.generation if obeyed is not None else 0, held, versions))
