"""Gateway processes are killed under load: no number that only grows ever falls, and the totals are the clients'.

Every answer is counted before it is written, so answered <= counted. A request whose connection broke was counted or
not, so counted <= answered + broken: the difference is what the killed processes had in hand. Clients never retry.
"""

import argparse
import asyncio
import math
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import GrpcClient, HttpClient, infer_message
from bench.launch import Gateway, serve

NAME: Final = "one"
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
MESSAGE: Final = infer_message(NAME, {"x": ("FP64", [1], bytes(8))})
PAUSE_S: Final = 0.005
SCRAPE_S: Final = 0.2
BACK_S: Final = 120.0
GROWING: Final = ("counter", "histogram")
"""Kinds of metrics whose samples never fall."""


class Counts(msgspec.Struct):
    """What the clients of one door saw: answers, other answers, and requests that were never answered."""

    answered: int = 0
    other: int = 0
    broken: int = 0


class Scrapes:
    """Reads the exposition again and again and notes every sample that falls or is missing."""

    def __init__(self, address: str) -> None:
        self.count = 0
        self.falls: list[str] = []
        self.last: dict[str, float] = {}
        self._url = f"http://{address}/metrics"

    def take(self) -> None:
        """Scrape once."""
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            now = growing(answer.read().decode())
        self.falls += fallen(self.last, now)
        self.last = now
        self.count += 1

    async def keep(self, stop: asyncio.Event) -> None:
        """Scrape until `stop` is set."""
        while not stop.is_set():
            await asyncio.to_thread(self.take)
            await asyncio.sleep(SCRAPE_S)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for sample, value in self.last.items()
            if sample.partition("{")[0] == name and all(label in sample for label in wanted)
        )


def growing(text: str) -> dict[str, float]:
    """Return the samples of an exposition that may only grow, by name and labels."""
    return {
        series(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in GROWING
        for sample in family.samples
    }


def series(name: str, labels: Mapping[str, str]) -> str:
    """Return a sample's name and labels as one string."""
    written = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{written}}}"


def fallen(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return what was there before and is now less, or not there."""
    return [
        f"{sample}: {value:g}, then {now.get(sample, math.nan):g}"
        for sample, value in before.items()
        if now.get(sample, -math.inf) < value
    ]


async def http_client(gateway: Gateway, counts: Counts, stop: asyncio.Event) -> None:
    """Ask over HTTP, one request after the other."""
    async with HttpClient(gateway.http, 1) as http:
        while not stop.is_set():
            try:
                status = (await http.infer(NAME, BODY)).status
            except (OSError, TimeoutError):
                counts.broken += 1
            else:
                counts.answered += status == 200
                counts.other += status != 200
            await asyncio.sleep(PAUSE_S)


async def grpc_client(gateway: Gateway, counts: Counts, stop: asyncio.Event) -> None:
    """Ask over gRPC; UNAVAILABLE without our metadata is a connection that broke."""
    async with GrpcClient(gateway.grpc) as rpc:
        while not stop.is_set():
            answer = await rpc.infer(MESSAGE)
            counts.answered += answer.status == 0
            lost = answer.status != 0 and "turnout-request-id" not in answer.headers
            counts.broken += lost
            counts.other += answer.status != 0 and not lost
            await asyncio.sleep(PAUSE_S)


def listening(gateway: Gateway) -> list[int]:
    """Return the gateway processes whose doors are open, the oldest first."""
    with urllib.request.urlopen(f"http://{gateway.metrics}/snapshot", timeout=10) as answer:
        processes = msgspec.json.decode(answer.read())["processes"]
    return [one["pid"] for one in processes if one["listening"]]


async def kill(gateway: Gateway, count: int, kills: int) -> int:
    """Kill the oldest process whenever all are there; return how often. Raises RuntimeError when they stay away."""
    victim = 0
    for number in range(kills + 1):
        until = time.monotonic() + BACK_S
        while victim in (pids := await asyncio.to_thread(listening, gateway)) or len(pids) < count:
            if time.monotonic() > until:
                raise RuntimeError(f"only {len(pids)} of {count} processes within {BACK_S:g} s: {gateway.log[-5:]}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        if number < kills:
            victim = pids[0]
            os.kill(victim, signal.SIGKILL)
            print(f"  kill {number + 1} of {kills}", flush=True)
    return kills


async def drive(campaign: Campaign, gateway: Gateway, count: int, kills: int, clients: int) -> None:
    """Run clients, scrapes and kills side by side and judge them."""
    counts = {"http": Counts(), "grpc": Counts()}
    scrapes = Scrapes(gateway.metrics)
    stop, enough = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        scraping = group.create_task(scrapes.keep(enough))
        asking = [
            group.create_task(client(gateway, counts[door], stop))
            for door, client in (("http", http_client), ("grpc", grpc_client))
            for _ in range(clients)
        ]
        killed = await kill(gateway, count, kills)
        stop.set()
        await asyncio.wait(asking)
        enough.set()
        await scraping
    await asyncio.to_thread(scrapes.take)
    judge(campaign, scrapes, counts, killed)


def judge(campaign: Campaign, scrapes: Scrapes, counts: Mapping[str, Counts], kills: int) -> None:
    """Record what scrapes and clients say."""
    campaign.note("scrapes", scrapes.count)
    campaign.at_least("kills of gateway processes", kills, 1)
    campaign.equal("samples that fell or were missing", scrapes.falls[:5], [])
    for door, seen in counts.items():
        campaign.note(f"{door}: answered, broken, other", [seen.answered, seen.broken, seen.other])
        counted = int(scrapes.total("turnout_requests_total", route=NAME, protocol=door, outcome="ok"))
        campaign.equal(f"{door}: answers other than predictions", seen.other, 0)
        campaign.between(
            f"{door}: counted beyond what was answered; at most what broke",
            counted - seen.answered,
            0,
            seen.broken,
        )
    counted = int(scrapes.total("turnout_requests_total", route=NAME))
    for name in ("turnout_request_duration_seconds_count", "turnout_overhead_seconds_count"):
        apart = abs(counted - int(scrapes.total(name, route=NAME)))
        campaign.at_most(f"{name} apart from requests_total; at most one a kill", apart, kills)


def prove(campaign: Campaign, place: Path, *, processes: int, kills: int, clients: int) -> None:
    """Serve one model from `place` and kill processes of it."""
    versions.write_onnx(place / "models" / NAME, 1.0)
    with serve(place / "models", place / "state", "--processes", str(processes)) as gateway:
        asyncio.run(drive(campaign, gateway, processes, kills, clients))


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Prove it with the numbers of the command line."""
    with tempfile.TemporaryDirectory() as temporary:
        prove(
            campaign,
            Path(temporary),
            processes=arguments.processes,
            kills=arguments.kills,
            clients=arguments.clients,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="about 15 s each: who dies soon is started later")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8, help="of each door")
    run("process-kills", check, parser)
