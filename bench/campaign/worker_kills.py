"""A kill -9 of each kind of worker with 32 calls in flight: no hang, 503 at once, fallbacks hide it, and it is back."""

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient
from bench.launch import Gateway, serve

BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
IN_FLIGHT: Final = 32
DEADLINE_MS: Final = 5_000


class Kind(msgspec.Struct, frozen=True):
    """A kind of worker: how its version is written, what its command line shows, and how soon it must be back."""

    name: str
    write: Callable[[Path], None]
    back_s: float


KINDS: Final = (
    Kind("python", lambda folder: versions.write_python(folder, 7.0), 5),
    Kind("spi", lambda folder: versions.write_spi(folder, 7.0), 5),
    Kind("spark", lambda folder: versions.write_spark({folder: 7.0}), 30),
)


class Call(msgspec.Struct):
    """One request: when it was sent and answered, its status, and whether a fallback answered."""

    sent_s: float
    answered_s: float
    status: int
    fallback: bool


async def keep_asking(gateway: Gateway, route: str, calls: list[Call], stop: asyncio.Event) -> None:
    """Keep 32 requests in flight on one route until `stop` is set; a request without an answer counts as status 0."""

    async def work(http: HttpClient) -> None:
        while not stop.is_set():
            sent = time.monotonic()
            try:
                answer = await http.infer(route, BODY, within_s=30)
                calls.append(Call(sent, time.monotonic(), answer.status, "turnout-fallback" in answer.headers))
            except (OSError, TimeoutError):
                calls.append(Call(sent, time.monotonic(), 0, fallback=False))
            await asyncio.sleep(0.005 if calls[-1].status == 503 else 0)

    async with HttpClient(gateway.http, IN_FLIGHT) as http, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work(http))


def worker_pid(gateway: Gateway) -> int:
    """Return the pid of the one worker of this gateway."""
    found = [pid for pid, command in gateway.descendants().items() if " --socket " in f"{command} "]
    if len(found) != 1:
        raise RuntimeError(f"expected one worker, found {gateway.descendants()}")
    return found[0]


async def kill_under_load(campaign: Campaign, gateway: Gateway, kind: Kind) -> None:
    """Kill the worker while both routes are asked, and judge every call."""
    plain: list[Call] = []
    rescued: list[Call] = []
    stop = asyncio.Event()
    load = asyncio.gather(keep_asking(gateway, "plain", plain, stop), keep_asking(gateway, "rescued", rescued, stop))
    await asyncio.sleep(2)
    victim = worker_pid(gateway)
    await asyncio.sleep(0.2)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    until = killed + kind.back_s + 15
    back = float("nan")
    while time.monotonic() < until:
        await asyncio.sleep(0.05)
        again = [c for c in plain[-200:] if c.status == 200 and c.sent_s > killed]
        if again:
            back = min(c.answered_s for c in again) - killed
            break
    await asyncio.sleep(1)
    stop.set()
    await load
    lost = [c for c in (*plain, *rescued) if c.sent_s <= killed <= c.answered_s]
    after = [c for c in plain if c.answered_s >= killed]
    before = [c for c in plain if c.answered_s < killed]
    campaign.note(f"{kind.name}: statuses before the kill", dict(Counter(c.status for c in before)))
    campaign.note(f"{kind.name}: statuses after the kill", dict(Counter(c.status for c in after)))
    campaign.at_least(f"{kind.name}: calls in flight at the kill", len(lost), IN_FLIGHT - 2)
    slowest = max((c.answered_s - c.sent_s for c in after if c.status != 200), default=float("nan"))
    campaign.at_most(
        f"{kind.name}: slowest answer of a call that was lost, seconds", slowest, min(DEADLINE_MS / 1000, 1.0)
    )
    odd = sum(c.status not in (200, 503) for c in plain)
    campaign.equal(f"{kind.name}: answers other than 200 and 503", odd, 0)
    campaign.at_most(f"{kind.name}: back after, seconds", back, kind.back_s)
    campaign.equal(f"{kind.name}: errors on the route with a fallback", sum(c.status != 200 for c in rescued), 0)
    campaign.at_least(f"{kind.name}: answers marked as fallback", sum(c.fallback for c in rescued), 1)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Kill each kind of worker in a gateway of its own."""
    for kind in KINDS:
        if kind.name not in arguments.kinds.split(","):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "models")
            kind.write(folder / "fragile" / "1")
            versions.write_onnx(folder / "steady" / "1", 3.0)
            plain = {"champion": "fragile@1", "deadline_ms": DEADLINE_MS}
            rescue = {**plain, "fallback": [{"value": {"value": 3.0}}]}
            versions.write_routes(folder, {"plain": plain, "rescued": rescue})
            with serve(folder, Path(temporary, "state"), within_s=120) as gateway:
                asyncio.run(kill_under_load(campaign, gateway, kind))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="python,spi,spark")
    run("worker-kills", check, parser)
