"""Two hundred route changes under load: nothing fails, nothing is misrouted, and zero means zero after a second.

Each version answers its own constant. Clients never retry. Many changes load and unload versions of every runtime.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import GrpcClient, HttpClient, decode_answer, infer_message
from bench.launch import Gateway, serve

NAME: Final = "moving"
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
MESSAGE: Final = infer_message(NAME, {"x": ("FP64", [1], bytes(8))})
HTTP_CONNECTIONS, GRPC_CONNECTIONS, GRPC_IN_FLIGHT = 24, 4, 12
SLOW_EVERY: Final = 25
"""Every so many changes name a JVM version, which takes seconds to start."""


class Seen(msgspec.Struct):
    """One answered request: when it was sent, who answered, and the generation that it carries."""

    sent_s: float
    version: int
    generation: int


class Change(msgspec.Struct):
    """One change: when it was first seen in an answer, its generation, the versions with a weight, and new loads."""

    seen_s: float
    generation: int
    weighted: frozenset[int]
    loads: bool


class Load:
    """Both doors kept busy; every answer is checked as it comes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.seen: list[Seen] = []
        self.failures: list[str] = []
        self.generation = 0
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Drive until `stop` is set."""
        async with (
            HttpClient(self.gateway.http, HTTP_CONNECTIONS) as http,
            GrpcClient(self.gateway.grpc, GRPC_CONNECTIONS) as rpc,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(HTTP_CONNECTIONS):
                group.create_task(self._http(http, stop))
            for _ in range(GRPC_IN_FLIGHT):
                group.create_task(self._grpc(rpc, stop))

    async def _http(self, http: HttpClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            sent = time.monotonic()
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
        while not stop.is_set():
            sent = time.monotonic()
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


def route_for(campaign: Campaign, quick: list[int], slow: list[int], change: int) -> dict[str, Any]:
    """Return a random route over two or three versions, one of them weighted zero now and then."""
    chosen = campaign.random.sample(quick, 3)
    if change % SLOW_EVERY == SLOW_EVERY - 1:
        chosen[1] = slow[(change // SLOW_EVERY) % len(slow)]
    share = campaign.random.randrange(1, 5_000)
    weights = {chosen[0]: 10_000 - share, chosen[1]: share, chosen[2]: 0}
    return {"champion": f"{NAME}@{chosen[0]}", "weights": {f"{NAME}@{n}": w for n, w in weights.items()}}


async def change_routes(
    campaign: Campaign, load: Load, folder: Path, quick: list[int], slow: list[int], count: int
) -> list[Change]:
    """Make the changes, each after the one before was seen and has stood for a second."""
    changes: list[Change] = []
    held: set[int] = set()
    for number in range(count):
        route = route_for(campaign, quick, slow, number)
        named = {int(ref.partition("@")[2]) for ref in route["weights"]}
        before = load.generation
        versions.write_routes(folder, {NAME: route})
        until = time.monotonic() + 120
        while load.generation == before:
            if time.monotonic() > until:
                raise RuntimeError(f"change {number} to {route} did not take effect within 120 s")
            await asyncio.sleep(0.005)
        weighted = frozenset(int(ref.partition("@")[2]) for ref, weight in route["weights"].items() if weight)
        changes.append(Change(time.monotonic(), load.generation, weighted, bool(named - held)))
        held = named
        await asyncio.sleep(1.1)
    return changes


def late_from_zero(seen: list[Seen], changes: list[Change]) -> int:
    """Count answers to requests sent a second after a change (and before the next) from a version without weight."""
    wrong = 0
    for change, following in zip(changes, [*changes[1:], None], strict=True):
        last = following.seen_s - 1.1 if following else float("inf")
        wrong += sum(
            1
            for s in seen
            if change.seen_s + 1.0 <= s.sent_s <= max(last, change.seen_s + 1.0) and s.version not in change.weighted
        )
    return wrong


async def drive(
    campaign: Campaign, gateway: Gateway, folder: Path, quick: list[int], slow: list[int], count: int
) -> None:
    """Run the load and the changes side by side and record the figures."""
    load = Load(gateway)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(stop))
    await asyncio.sleep(1)
    started = time.monotonic()
    try:
        changes = await change_routes(campaign, load, folder, quick, slow, count)
    finally:
        stop.set()
        await running
    campaign.note("requests answered", len(load.seen))
    campaign.note("requests a second", round(len(load.seen) / (time.monotonic() - started)))
    campaign.note("answers by version", dict(sorted(Counter(s.version for s in load.seen).items())))
    campaign.note("first failures", load.failures[:5])
    campaign.equal("route changes", len(changes), count)
    campaign.at_least("changes that loaded or unloaded versions", sum(change.loads for change in changes), 50)
    campaign.equal("failed or misrouted requests", len(load.failures), 0)
    campaign.equal("answers from a zero-weight version a second after a change", late_from_zero(load.seen, changes), 0)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Write the versions, start the gateway and drive the changes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        models = folder / NAME
        for number in (1, 2, 3):
            versions.write_onnx(models / str(number), float(number))
        versions.write_sklearn(models / "4", 4.0)
        versions.write_python(models / "5", 5.0)
        versions.write_python(models / "6", 6.0)
        versions.write_spark({models / "7": 7.0})
        versions.write_spi(models / "8", 8.0)
        versions.write_routes(folder, {NAME: {"champion": f"{NAME}@1"}})
        with serve(folder, Path(temporary, "state"), "--processes", str(arguments.processes), within_s=120) as gateway:
            asyncio.run(drive(campaign, gateway, folder, [1, 2, 3, 4, 5, 6], [7, 8], arguments.changes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    run("route-changes", check, parser)
