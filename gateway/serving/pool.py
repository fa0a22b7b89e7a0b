"""Which versions are loaded in this process. It loads what it is told to hold and unloads the rest, once drained."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Final

from gateway.limits import Limits
from gateway.observe.metrics import Metrics
from gateway.pressure import Pressure
from gateway.serving.served_version import Failure, ServedVersion
from gateway.serving.turns import Turns
from turnout.core.snapshot import VersionEntry

LOADS_AT_ONCE: Final = 2
TURN_S: Final = 30.0


class Pool:
    """Loads and unloads versions. `scratch` is a private folder for the adapters that outlives loads.

    A version stays as long as a holder names it; each call under way counts as well. Of one `model@number` there is
    at most one: other bytes under the same number take its place. `on_loads` hears, before a load in this process
    begins and after it, what is being loaded: by version the digest.
    """

    def __init__(
        self,
        metrics: Metrics,
        scratch: Path,
        on_loads: Callable[[dict[str, str]], None] = lambda _loading: None,
        pressure: Pressure | None = None,
    ) -> None:
        self.pressure = pressure or Pressure(Limits())
        self._on_loads = on_loads
        self._metrics = metrics
        self._scratch = scratch
        self._served: dict[str, ServedVersion] = {}
        self._loads: dict[ServedVersion, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = Turns(LOADS_AT_ONCE)
        self._begun: set[ServedVersion] = set()
        self._listeners: list[Callable[[ServedVersion], None]] = []
        self._gone: dict[str, Failure] = {}
        self._leaving: set[ServedVersion] = set()

    def watch(self, listener: Callable[[ServedVersion], None]) -> None:
        """Ask to be told of each step of each version's life."""
        self._listeners.append(listener)

    def get(self, key: str) -> ServedVersion | None:
        """Return the version `model@number`, whatever its stage."""
        return self._served.get(key)

    def versions(self) -> Iterable[ServedVersion]:
        """Return all versions that are held."""
        return self._served.values()

    def leaving(self) -> Iterable[ServedVersion]:
        """Return versions that are no longer held and finish what they began."""
        return self._leaving

    def hold(
        self,
        entries: Iterable[VersionEntry],
        directories: Mapping[str, str],
        sockets: Mapping[str, str],
        problems: Mapping[str, Failure],
        alone: Collection[str] = (),
    ) -> None:
        """Start to load what is not here yet; returns at once. An entry without a directory fails for its problem.

        One whose socket is another than before has a new worker, and is loaded anew. While one of those in `alone`
        loads, no other does in this process.
        """
        for entry in entries:
            key = str(entry.ref)
            served = self._served.get(key)
            if (
                served is not None
                and served.entry.digest == entry.digest
                and not (served.may_be_retried and key in directories)
                and sockets.get(key, str(served.socket)) == str(served.socket)
            ):
                served.adopt(entry)
                continue
            if served is not None:
                self._unload(served)
            if key in directories:
                socket = Path(sockets[key]) if key in sockets else None
                self._load(entry, Path(directories[key]), socket, alone=key in alone)
            else:
                self._add(entry).lack_files(problems.get(key, Failure("its files are not here")))

    def keep(self, keys: Collection[str]) -> None:
        """Unload, once drained, all that is not among `keys`; returns at once."""
        for served in [served for key, served in self._served.items() if key not in keys]:
            self._unload(served)

    def fail(self, key: str, failure: Failure) -> None:
        """Take a version out of rotation for good; one that is not held yet fails as soon as it is."""
        served = self._served.get(key)
        if served is None:
            self._gone[key] = failure
        else:
            self._background(self._fail(served, failure))

    async def close(self) -> None:
        """Unload everything, once nothing is in flight."""
        self.keep(())
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _load(self, entry: VersionEntry, directory: Path, socket: Path | None, *, alone: bool) -> None:
        served = self._add(entry)
        served.socket = socket
        task = asyncio.create_task(self._load_in_turn(served, directory, socket, alone=alone))
        self._loads[served] = task
        task.add_done_callback(lambda _: self._loads.pop(served, None))

    def _add(self, entry: VersionEntry) -> ServedVersion:
        served = ServedVersion(entry, self._metrics, self._tell, self.pressure)
        self._served[served.key] = served
        self._tell(served)
        return served

    async def _load_in_turn(self, served: ServedVersion, directory: Path, socket: Path | None, *, alone: bool) -> None:
        gone = self._gone.pop(served.key, None)
        if gone is not None:
            await served.fail(gone)
        elif served.entry.runtime.uses_worker:
            # It costs this process nothing while its worker starts, however long that takes.
            await served.load(directory, socket, self._scratch)
        elif alone:
            async with self._turns.alone():
                await self._load_here(served, directory)
        else:
            await self._load_in_one_turn(served, directory)

    async def _load_in_one_turn(self, served: ServedVersion, directory: Path) -> None:
        """Load; a load that takes long gives its turn up and goes on: two that hang must not keep all others out."""
        async with self._turns.one():
            loading = asyncio.create_task(self._load_here(served, directory))
            try:
                await asyncio.wait({loading}, timeout=TURN_S)
            except asyncio.CancelledError:
                loading.cancel()
                await asyncio.wait({loading})
                raise
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.cancel()
            await asyncio.wait({loading})
            raise

    async def _load_here(self, served: ServedVersion, directory: Path) -> None:
        self._begun.add(served)
        self._tell_loads()
        try:
            # The load may end this process. Two turns of the loop, and what was told is on its way.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await served.load(directory, None, self._scratch)
        finally:
            self._begun.discard(served)
            self._tell_loads()

    def _tell_loads(self) -> None:
        self._on_loads({served.key: served.entry.digest for served in self._begun})

    def _unload(self, served: ServedVersion) -> None:
        del self._served[served.key]
        self._leaving.add(served)
        self._background(self._unload_now(served))

    async def _unload_now(self, served: ServedVersion) -> None:
        await self._stop_loading(served)
        await served.unload()
        self._leaving.discard(served)

    async def _fail(self, served: ServedVersion, failure: Failure) -> None:
        await self._stop_loading(served)
        await served.fail(failure)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop_loading(self, served: ServedVersion) -> None:
        task = self._loads.get(served)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _tell(self, served: ServedVersion) -> None:
        for listener in self._listeners:
            listener(served)
