"""Faults as scenes: what is done to a running gateway, while callers ask the victim's route and another one.

Each scene says what its callers may see and how soon the victim must answer again. Nothing here knows bars of a
campaign's other figures, nor how the gateway works: it sends signals and bytes, and looks at answers.
"""

import asyncio
import math
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench import versions
from bench.client import HttpClient
from bench.faults import moody
from bench.launch import Gateway

OTHER: Final = "steady"
IN_PROCESS: Final = "inproc"
WIDE: Final = "wide"
DEADLINE_MS: Final = 2_000
_CALLERS: Final = 4
_PAUSE_S: Final = 0.02
_QUIET_S: Final = 0.5
_RUN: Final = 8  # so many right answers one after the other are health
_PATIENCE_S: Final = 60.0
OK: Final = "200"
CLOSED: Final = "closed"
Do = Callable[[Gateway, Path], object]


class Scene(msgspec.Struct, frozen=True):
    """A fault. `sees`: what callers of `route` may get but right answers; `others`: the same of the other route.

    Health is looked for once the fault has lasted so long: some show later only.
    """

    name: str
    did: str
    route: str
    do: Do
    sees: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    within_s: float = 5.0
    lasts_s: float = 1.0


class Told(msgspec.Struct):
    """What came of a scene: outcomes by route, what the one bad call got, and the seconds until health."""

    name: str
    did: str
    callers: dict[str, int]
    others: dict[str, int]
    bad_call: str
    healthy_s: float


class _Call(msgspec.Struct):
    sent_s: float
    answered_s: float
    outcome: str


def body(x: float, *shape: int) -> bytes:
    """Return a request whose elements are all the same."""
    tensor = {"name": "x", "datatype": "FP64", "shape": list(shape), "data": [x] * math.prod(shape)}
    return msgspec.json.encode({"inputs": [tensor]})


def shape_of(route: str) -> tuple[int, ...]:
    """Return a row's shape: some models take a matrix."""
    return (1, 1) if route in (IN_PROCESS, WIDE) else (1,)


async def play(gateway: Gateway, state: Path, scene: Scene) -> Told:
    """Have callers ask, do what the scene does, and wait until the victim answers as before."""
    calls: dict[str, list[_Call]] = {scene.route: [], OTHER: []}
    done = asyncio.Event()
    callers = [asyncio.create_task(_ask(gateway, route, found, done)) for route, found in calls.items()]
    try:
        await asyncio.to_thread(pid_of, gateway, "gateway.main")  # what the last scene replaced is gone
        await asyncio.sleep(_QUIET_S)
        began = time.monotonic()
        bad = await asyncio.to_thread(scene.do, gateway, state)
        healthy_s = await _healthy(calls[scene.route], began, scene.lasts_s)
        await asyncio.sleep(_QUIET_S)
    finally:
        done.set()
        await asyncio.gather(*callers)
    return Told(
        scene.name,
        scene.did,
        _outcomes(calls[scene.route], began),
        _outcomes(calls[OTHER], began),
        bad if isinstance(bad, str) else "",
        healthy_s,
    )


def faults_of(scene: Scene, told: Told) -> list[str]:
    """Return what a scene's callers saw and may not see, or that it took too long; empty when all is well."""
    found = [f"callers saw {outcome}" for outcome in told.callers if outcome != OK and outcome not in scene.sees]
    found += [f"others saw {outcome}" for outcome in told.others if outcome != OK and outcome not in scene.others]
    if told.bad_call and told.bad_call not in (scene.sees or {OK}):
        found.append(f"the bad call got {told.bad_call}")
    if not told.healthy_s <= scene.within_s:
        found.append(f"healthy after {told.healthy_s:.1f} s, allowed are {scene.within_s:g} s")
    return found


async def _ask(gateway: Gateway, route: str, calls: list[_Call], done: asyncio.Event) -> None:
    sent = body(0, *shape_of(route))

    async def work(client: HttpClient) -> None:
        while not done.is_set():
            began = time.monotonic()
            try:
                deadline = {"turnout-deadline-ms": str(DEADLINE_MS)}
                outcome = str((await client.infer(route, sent, deadline, within_s=30)).status)
            except TimeoutError:
                outcome = "hang"
            except OSError:
                outcome = CLOSED
            calls.append(_Call(began, time.monotonic(), outcome))
            await asyncio.sleep(_PAUSE_S)

    async with HttpClient(gateway.http, _CALLERS) as client, asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(work(client))


async def _healthy(calls: list[_Call], began: float, lasts_s: float) -> float:
    """Return the seconds until the first of so many right answers in a row, all sent after the fault; NaN if never."""
    while time.monotonic() < began + _PATIENCE_S:
        await asyncio.sleep(_PAUSE_S)
        since = sorted((call for call in list(calls) if call.sent_s >= began), key=lambda call: call.answered_s)
        wrong = [at for at, call in enumerate(since) if call.outcome != OK]
        right = since[wrong[-1] + 1 :] if wrong else since
        if len(right) >= _RUN and time.monotonic() - began > lasts_s:
            return right[0].answered_s - began if wrong else 0.0
    return float("nan")


def _outcomes(calls: list[_Call], began: float) -> dict[str, int]:
    return dict(sorted(Counter(call.outcome for call in calls if call.answered_s >= began).items()))


def call_with(route: str, x: float, rows: int = 1) -> Do:
    """Return what sends a bad row, or more, to a route, and tells what it got."""

    def do(gateway: Gateway, _state: Path) -> str:
        async def call() -> str:
            async with HttpClient(gateway.http, 1) as client:
                try:
                    headers = {"turnout-deadline-ms": str(DEADLINE_MS)}
                    sent = body(x, rows, *shape_of(route)[1:])
                    return str((await client.infer(route, sent, headers, within_s=30)).status)
                except TimeoutError:
                    return "hang"
                except OSError:
                    return CLOSED

        return asyncio.run(call())

    return do


def pid_of(gateway: Gateway, word: str) -> int:
    """Return the one process below the gateway whose command line holds `word`, once there is just one.

    One that was replaced may still be leaving. Raises RuntimeError.
    """
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        found = [pid for pid, command in gateway.descendants().items() if word in f"{command} "]
        if len(found) == 1:
            return found[0]
        time.sleep(0.1)
    raise RuntimeError(f"not one process of {word!r}: {found}")


def signalled(word: str, number: signal.Signals) -> Do:
    """Return what sends a signal to one process of the gateway."""
    return lambda gateway, _: os.kill(pid_of(gateway, word), number)


def worker_socket(gateway: Gateway, word: str) -> Path:
    """Return the socket of a worker."""
    command = gateway.descendants()[pid_of(gateway, word)]
    return Path(command.split("--socket ")[1].split()[0])


def garbage(word: str) -> Do:
    """Return what connects to a worker's socket again and again and sends it no frames."""

    def do(gateway: Gateway, _state: Path) -> None:
        path = str(worker_socket(gateway, word))
        for data in (b"\xff" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"", os.urandom(65536), struct.pack("<I", 2**32 - 1)):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(2)
                peer.connect(path)
                try:
                    peer.sendall(data)
                    peer.recv(65536)
                except OSError:
                    continue

    return do


def killed_mid_frame(route: str, word: str) -> Do:
    """Return what kills a worker while a request of 8 MiB is on its way to it."""

    def do(gateway: Gateway, _state: Path) -> str:
        row = msgspec.json.encode(
            {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1 << 20], "data": [0.0] * (1 << 20)}]}
        )
        pid = pid_of(gateway, word)

        async def call() -> str:
            async with HttpClient(gateway.http, 1) as client:
                asked = asyncio.create_task(client.infer(route, row, within_s=30))
                os.kill(pid, signal.SIGSTOP)  # it reads no more: the frame stays half sent
                await asyncio.sleep(1.0)
                os.kill(pid, signal.SIGKILL)
                return str((await asked).status)

        return asyncio.run(call())

    return do


def killed_while_loading(word: str) -> Do:
    """Return what kills a worker, and then its successor before that has loaded its model."""

    def do(gateway: Gateway, _state: Path) -> None:
        first = pid_of(gateway, word)
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = [pid for pid, command in gateway.descendants().items() if word in f"{command} " and pid != first]
            if found:
                time.sleep(0.15)  # it listens, greets, and imports its model
                os.kill(found[0], signal.SIGKILL)
                return
            time.sleep(0.01)
        raise RuntimeError("no successor")

    return do


def stopped_for(word: str, seconds: float) -> Do:
    """Return what stops a process for a while."""

    def do(gateway: Gateway, _state: Path) -> None:
        pid = pid_of(gateway, word)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    return do


def truncated_publication(gateway: Gateway, state: Path) -> None:
    """Cut the file from which processes read the snapshot, then kill the process: the next one has to read it."""
    for path in (state / "run" / "snapshots").glob("[!.]*"):
        path.write_bytes(path.read_bytes()[:100])
    os.kill(pid_of(gateway, "gateway.main"), signal.SIGKILL)


def forked_and_killed(route: str) -> Do:
    """Return what has a model fork inside the gateway process, and kills that process."""

    def do(gateway: Gateway, state: Path) -> None:
        pid = pid_of(gateway, "gateway.main")
        call_with(route, moody.FORK)(gateway, state)
        os.kill(pid, signal.SIGKILL)

    return do


def write_models(folder: Path) -> None:
    """Write the models of all scenes; each worker is lost twice at most, since three losses take a version out."""
    versions.write_onnx(folder / OTHER, 1.0)
    for number in range(4):
        moody.write_python(folder / f"py{number}")
    for number in range(2):
        moody.write_spi(folder / f"spi{number}")
    moody.write_python(folder / WIDE, -1)
    moody.write_in_process(folder / IN_PROCESS)
