"""Two hundred route changes under load: nothing fails, nothing is misrouted, and zero means zero after a second.

Each version answers its own constant. Clients never retry. Many changes load and unload versions of every runtime.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import GrpcClient, HttpClient, decode_answer, infer_message
from bench.launch import Gateway, serve

NAME: Final = "moving"
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
MESSAGE: Final = infer_message(NAME, {"x": ("FP64", [1], bytes(8))})
CONNECTIONS: Final = 32
"""On each door; a connection sends its next request when its turn has come and the one before is answered."""
QUICK: Final = {1: "onnx", 2: "onnx", 3: "onnx", 4: "sklearn", 5: "python", 6: "python"}
SLOW: Final = {7: "spark", 8: "spi"}
NEWEST: Final = 9
"""Loaded whatever the routes say, so no route names it."""
RUNTIMES: Final = {**QUICK, **SLOW}
SLOW_EVERY: Final = 10
"""Every so many changes name a JVM version, which takes seconds to start."""
CAPACITY_S: Final = 10.0
SHARE: Final = 0.65
"""Of the capacity, what the connections send together; half is the bar, and loading needs a core as well."""
CHANGE_S: Final = 300.0
"""After so long a change is given up; a Spark version takes 15 s of a core to load."""
STANDS_S: Final = 1.5
ALLOWED_S: Final = 1.0
"""How long after a change a version may still answer that has no weight any more."""


class Seen(msgspec.Struct):
    """One answered request: when it was sent, who answered, and the generation that it carries."""

    sent_s: float
    version: int
    generation: int


class Change(msgspec.Struct):
    """One change: when first seen in an answer and when the next was written, its generation, weights and loads."""

    seen_s: float
    left_s: float
    generation: int
    weighted: frozenset[int]
    moved: frozenset[int]
    """Versions that were loaded or unloaded since the change before."""


class Load:
    """Both doors kept busy, at `rate` requests a second or all that they take; every answer is checked as it comes."""

    def __init__(self, gateway: Gateway, rate: float = float("inf")) -> None:
        self.gateway = gateway
        self._between_s = 2 * CONNECTIONS / rate
        self.seen: list[Seen] = []
        self.failures: list[str] = []
        self.generation = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Drive until `stop` is set."""
        async with (
            HttpClient(self.gateway.http, CONNECTIONS) as http,
            GrpcClient(self.gateway.grpc, CONNECTIONS) as rpc,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CONNECTIONS):
                group.create_task(self._http(http, stop))
                group.create_task(self._grpc(rpc, stop))

    async def _turns(self, stop: asyncio.Event) -> AsyncIterator[float]:
        """Yield the time whenever a connection may send; what was missed is not made up for."""
        turn = time.monotonic() + random.uniform(0, self._between_s)
        while not stop.is_set():
            await asyncio.sleep(turn - time.monotonic())
            now = time.monotonic()
            turn = max(turn + self._between_s, now)
            yield now

    async def _http(self, http: HttpClient, stop: asyncio.Event) -> None:
        async for sent in self._turns(stop):
            try:
                answer = await http.infer(NAME, BODY)
            except (OSError, TimeoutError) as error:
                self.failures.append(f"http: {error!r}")
                continue
            if answer.status != 200:
                self.failures.append(f"http {answer.status}: {answer.body[:200]!r}")
            else:
                self._take(sent, answer.headers, float(answer.json()["outputs"][0]["data"][0]))

    async def _grpc(self, rpc: GrpcClient, stop: asyncio.Event) -> None:
        async for sent in self._turns(stop):
            answer = await rpc.infer(MESSAGE)
            if answer.status != 0:
                self.failures.append(f"grpc {answer.status}: {answer.body[:200]!r}")
            else:
                value = memoryview(decode_answer(answer.body).raw_output_contents[0]).cast("d")[0]
                self._take(sent, answer.headers, value)

    def _take(self, sent: float, headers: dict[str, str], value: float) -> None:
        version = int(headers["turnout-version"].partition("@")[2])
        if version != value:
            self.failures.append(f"the answer {value} came under turnout-version {version}")
        self.generation = max(self.generation, int(headers["turnout-generation"]))
        self.seen.append(Seen(sent, version, int(headers["turnout-generation"])))


class Changes:
    """Makes the changes one by one, each after the one before was seen and has stood for a while."""

    def __init__(self, campaign: Campaign, load: Load, folder: Path) -> None:
        self.campaign = campaign
        self.load = load
        self.folder = folder
        self.made: list[Change] = []
        self._loaded: frozenset[int] = frozenset()

    async def make(self, count: int) -> None:
        """Make `count` changes. Raises RuntimeError when one is not seen in time."""
        self._loaded = await loaded(self.load.gateway)
        for number in range(count):
            await self._make(self._route(number))

    async def _make(self, weights: dict[int, int]) -> None:
        before = self.load.generation
        champion = next(iter(weights))
        route = {"champion": f"{NAME}@{champion}", "weights": {f"{NAME}@{n}": w for n, w in weights.items()}}
        versions.write_routes(self.folder, {NAME: route})
        until = time.monotonic() + CHANGE_S
        while self.load.generation == before:
            if time.monotonic() > until:
                raise RuntimeError(f"change {len(self.made)} to {route} did not take effect within {CHANGE_S:g} s")
            await asyncio.sleep(0.005)
        seen = time.monotonic()
        weighted = frozenset(number for number, weight in weights.items() if weight)
        await asyncio.sleep(STANDS_S)
        now = await loaded(self.load.gateway)
        left = time.monotonic()
        self.made.append(Change(seen, left, self.load.generation, weighted, now ^ self._loaded))
        self._loaded = now

    def _route(self, number: int) -> dict[int, int]:
        """Return random weights of three versions, the champion first, the last one zero."""
        chosen = self.campaign.random.sample(list(QUICK), 3)
        if number % SLOW_EVERY == SLOW_EVERY - 1:
            chosen[1] = list(SLOW)[(number // SLOW_EVERY) % len(SLOW)]
        share = self.campaign.random.randrange(1, 5_000)
        return {chosen[0]: 10_000 - share, chosen[1]: share, chosen[2]: 0}


async def loaded(gateway: Gateway) -> frozenset[int]:
    """Return the versions that are loaded, as the repository index tells, over a connection of its own."""
    async with HttpClient(gateway.http, 1) as door:  # one kept idle over a slow change would be closed by then
        index = (await door.call("POST", "/v2/repository/index")).json()
    return frozenset(int(entry["version"]) for entry in index if entry["state"] == "READY")


def late_from_zero(seen: list[Seen], changes: list[Change]) -> tuple[int, int]:
    """Return how many requests were sent a second after a change and before the next, and how many went astray.

    Astray is an answer of a version without weight.
    """
    sent = wrong = 0
    at = iter(sorted(seen, key=lambda s: s.sent_s))
    answer = next(at, None)
    for change in changes:
        while answer is not None and answer.sent_s < change.left_s:
            if answer.sent_s >= change.seen_s + ALLOWED_S:
                sent += 1
                wrong += answer.version not in change.weighted
            answer = next(at, None)
    return sent, wrong


def outside_generation(seen: list[Seen], changes: list[Change]) -> int:
    """Count answers of a version that has no weight in the very generation which the answer carries."""
    weighted = {change.generation: change.weighted for change in changes}
    return sum(s.version not in weighted[s.generation] for s in seen if s.generation in weighted)


async def capacity(gateway: Gateway) -> float:
    """Return the requests a second that the same clients get answered with no change under way."""
    load, stop = Load(gateway), asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await asyncio.sleep(1)
    first, started = len(load.seen), time.monotonic()
    await asyncio.sleep(CAPACITY_S)
    rate = (len(load.seen) - first) / (time.monotonic() - started)
    stop.set()
    await running
    return rate


async def drive(campaign: Campaign, gateway: Gateway, folder: Path, count: int) -> None:
    """Run the load and the changes side by side and record the figures."""
    most = await capacity(gateway)
    load = Load(gateway, SHARE * most)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await asyncio.sleep(1)
    first, started = len(load.seen), time.monotonic()
    changes = Changes(campaign, load, folder)
    try:
        await changes.make(count)
    except (OSError, TimeoutError, RuntimeError) as error:
        load.failures.append(f"change {len(changes.made)}: {error}")  # what was seen until then is judged all the same
    finally:
        rate = (len(load.seen) - first) / (time.monotonic() - started)
        stop.set()
        await running
    campaign.note("requests answered", len(load.seen))
    campaign.note("requests a second without and with changes", [round(most), round(rate)])
    campaign.note("answers by version", dict(sorted(Counter(s.version for s in load.seen).items())))
    campaign.note("first failures", load.failures[:5])
    campaign.note("the gateway's last lines", gateway.log[-5:] if load.failures else [])
    judge(campaign, load, changes.made, count)
    campaign.at_least("load during the changes, share of capacity", rate / most, 0.5)


def judge(campaign: Campaign, load: Load, changes: list[Change], count: int) -> None:
    """Record what the answers say of the changes."""
    campaign.equal("route changes", len(changes), count)
    moves = Counter(RUNTIMES[n] for change in changes for n in change.moved)
    campaign.note("loads and unloads by runtime", dict(moves))
    campaign.at_least("changes that loaded or unloaded versions", sum(bool(c.moved) for c in changes), 50)
    campaign.at_least("fewest loads and unloads of a runtime", min(moves[r] for r in RUNTIMES.values()), 5)
    campaign.equal("failed or misrouted requests", len(load.failures), 0)
    campaign.equal("answers of a version without weight in their generation", outside_generation(load.seen, changes), 0)
    sent, wrong = late_from_zero(load.seen, changes)
    campaign.at_least("requests sent a second after a change and before the next", sent, count)
    campaign.equal("answers from a zero-weight version among them", wrong, 0)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Write the versions, start the gateway and drive the changes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        models = folder / NAME
        for number in (1, 2, 3, NEWEST):
            versions.write_onnx(models / str(number), float(number))
        versions.write_sklearn(models / "4", 4.0)
        versions.write_python(models / "5", 5.0)
        versions.write_python(models / "6", 6.0)
        versions.write_spark({models / "7": 7.0})
        versions.write_spi(models / "8", 8.0)
        versions.write_routes(folder, {NAME: {"champion": f"{NAME}@1"}})
        with serve(folder, Path(temporary, "state"), "--processes", str(arguments.processes), within_s=120) as gateway:
            asyncio.run(drive(campaign, gateway, folder, arguments.changes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    run("route-changes", check, parser)
