"""A thousand kills and stops of workers with 32 calls in flight each: every answer is right, nobody hangs.

No fallback is declared. Every row is unique and every answer is checked against its own rows. A version is hit again
only after it has served for a minute, as three losses within one would quarantine it; so many versions take turns.
"""

import argparse
import asyncio
import itertools
import math
import os
import signal
import struct
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from bench import lines, versions
from bench.campaign.harness import Campaign, run
from bench.client import GrpcClient, HttpClient, decode_answer, infer_message, settled
from bench.launch import Gateway, serve

IN_FLIGHT: Final = 32
CALLERS: Final = 40
DEADLINE_S: Final = 2.0
LONG_S: Final = 30.0
HANGS_S: Final = 60.0
LOST_WITHIN_S: Final = 1.0
STUCK_WITHIN_S: Final = 15.0
"""A stopped worker is given up 10 s after a ping that it does not answer; pings are a second apart."""
STEADY_S: Final = 66.0
"""Between two hits of one version: a worker that has served for 60 s is restarted without a long pause."""
BACK_S: Final = {"python": 5.0, "spi": 5.0, "spark": 30.0}
BACK_LIMIT_S: Final = 120.0
AT_ONCE: Final = 10
TOLERANCE: Final = 1e-9
WRITERS: Final[dict[str, Callable[[list[Path]], None]]] = {
    "python": lines.write_python,
    "spi": lines.write_spi,
    "spark": lines.write_spark,
}


class Call(msgspec.Struct):
    """One request: when it was sent and answered, its deadline, its status (HTTP, 0 none), and whether it was right."""

    sent_s: float
    deadline_s: float
    answered_s: float = math.inf
    status: int = 0
    right: bool = True


class Hit(msgspec.Struct):
    """One kill or stop: when, how many calls were in flight, all calls of it, and when the version served again."""

    kind: str
    stop: bool
    at_s: float = 0.0
    in_flight: int = 0
    calls: list[Call] = []
    back_s: float = math.inf


GRPC_STATUS: Final = {0: 200, 14: 503, 4: 504, 8: 429}
ALLOWED: Final = {False: (200, 429, 503), True: (200, 429, 503, 504)}
"""Statuses around a kill and around a stop; 429 is for callers who would come too late. While nobody knows yet that a
worker is stopped, callers queue for it until their deadline."""
LOST: Final = (200, 503)
"""Statuses of calls that were in flight at a kill."""


class Asking:
    """Callers of one version over one door; `x` makes rows that nobody else sends."""

    def __init__(self, gateway: Gateway, model: str, door: str, x: "itertools.count[int]", deadline_s: float) -> None:
        self.calls: list[Call] = []
        self.outstanding = 0
        self.callers = CALLERS
        self._gateway = gateway
        self._model = model
        self._door = door
        self._x = x
        self._deadline_s = deadline_s
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Ask until `stop`."""
        async with (
            HttpClient(self._gateway.http, CALLERS) as http,
            GrpcClient(self._gateway.grpc, 2) as rpc,
            asyncio.TaskGroup() as group,
        ):
            for number in range(CALLERS):
                group.create_task(self._ask_on(number, http, rpc))

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    async def _ask_on(self, number: int, http: HttpClient, rpc: GrpcClient) -> None:
        while not self._stop.is_set() and number < self.callers:
            call = Call(time.monotonic(), self._deadline_s)
            self.calls.append(call)
            rows = [float(next(self._x)) for _ in range(1 + number % 3)]
            self.outstanding += 1
            try:
                values = await (self._http(http, rows, call) if self._door == "http" else self._grpc(rpc, rows, call))
            except (OSError, TimeoutError):
                values = None
            finally:
                self.outstanding -= 1
            call.answered_s = time.monotonic()
            call.right = call.status != 200 or (values is not None and is_right(rows, values))
            await asyncio.sleep(0 if call.status == 200 else 0.02)

    async def _http(self, http: HttpClient, rows: list[float], call: Call) -> list[float] | None:
        tensor = {"name": versions.INPUT, "datatype": "FP64", "shape": [len(rows)], "data": rows}
        headers = {"turnout-deadline-ms": f"{self._deadline_s * 1000:.0f}"}
        answer = await http.infer(self._model, msgspec.json.encode({"inputs": [tensor]}), headers, HANGS_S)
        call.status = answer.status
        return answer.json()["outputs"][0]["data"] if answer.status == 200 else None

    async def _grpc(self, rpc: GrpcClient, rows: list[float], call: Call) -> list[float] | None:
        raw = struct.pack(f"<{len(rows)}d", *rows)
        message = infer_message(self._model, {versions.INPUT: ("FP64", [len(rows)], raw)})
        metadata = {"turnout-deadline-ms": f"{self._deadline_s * 1000:.0f}"}
        answer = await rpc.infer(message, metadata, HANGS_S)
        # A deadline of the client's own is a hang: the server's answer says which request it was.
        answered = answer.status == 0 or "turnout-request-id" in answer.headers
        call.status = GRPC_STATUS.get(answer.status, answer.status) if answered else 0
        if answer.status:
            return None
        return list(memoryview(decode_answer(answer.body).raw_output_contents[0]).cast("d"))


def is_right(rows: list[float], values: list[float]) -> bool:
    """Tell whether an answer is that of its own rows."""
    return len(rows) == len(values) and all(
        math.isclose(value, lines.value_at(x), rel_tol=TOLERANCE) for x, value in zip(rows, values, strict=True)
    )


def worker(gateway: Gateway, model: str) -> int | None:
    """Return the process id of a version's worker, None while there is none."""
    with urllib.request.urlopen(f"http://{gateway.metrics}/snapshot", timeout=10) as answer:
        pid: int | None = msgspec.json.decode(answer.read())["workers"].get(f"{model}@1")
    return pid


async def hit(gateway: Gateway, model: str, one: Hit, asking: Asking) -> None:
    """Hit the worker of a version while it is asked, and ask on until it serves again."""
    running = asyncio.create_task(asking.run())
    until = time.monotonic() + BACK_LIMIT_S
    while sum(call.status == 200 for call in asking.calls) < CALLERS and time.monotonic() < until:
        await asyncio.sleep(0.01)
    pid = await asyncio.to_thread(worker, gateway, model)
    while asking.outstanding < IN_FLIGHT and time.monotonic() < until:
        await asyncio.sleep(0)
    one.in_flight, one.at_s = asking.outstanding, time.monotonic()
    if pid is not None:
        os.kill(pid, signal.SIGSTOP if one.stop else signal.SIGKILL)
    asking.callers = 4  # enough to see when it is back
    while time.monotonic() < until:
        await asyncio.sleep(0.05)
        again = [call.answered_s for call in asking.calls if call.sent_s > one.at_s and call.status == 200]
        if again:
            one.back_s = min(again) - one.at_s
            break
    asking.stop()
    await running
    one.calls = asking.calls


class Hits:
    """All hits: versions take turns until there are enough."""

    def __init__(self, campaign: Campaign, gateway: Gateway, total: int) -> None:
        self.made: list[Hit] = []
        self._campaign = campaign
        self._gateway = gateway
        self._total = total
        self._begun = 0
        self._x = itertools.count(1)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def make(self, kinds: dict[str, str], steady_s: float) -> None:
        """Make them; `kinds` is by model."""
        async with asyncio.TaskGroup() as group:
            for number, (model, kind) in enumerate(kinds.items()):
                group.create_task(self._take_turns(model, kind, steady_s * number / len(kinds), steady_s))

    async def _take_turns(self, model: str, kind: str, first_s: float, steady_s: float) -> None:
        await asyncio.sleep(first_s)
        while self._begun < self._total:
            self._begun += 1
            draw = self._campaign.random
            one = Hit(kind, stop=bool(self._begun % 2))
            door, deadline_s = draw.choice(("http", "grpc")), draw.choice((DEADLINE_S, LONG_S))
            asking = Asking(self._gateway, model, door, self._x, deadline_s)
            async with self._turns:
                await hit(self._gateway, model, one, asking)
            self.made.append(one)
            if len(self.made) % 10 == 0 or len(self.made) == self._total:
                print(f"  {len(self.made)} of {self._total} hits", flush=True)
            if one.back_s < math.inf:
                await asyncio.sleep(max(0.0, one.at_s + one.back_s + steady_s - time.monotonic()))


def judge(campaign: Campaign, hits: list[Hit], total: int) -> None:
    """Record what all callers saw."""
    calls = [call for one in hits for call in one.calls]
    campaign.equal("kills and stops", len(hits), total)
    campaign.note("by kind", dict(Counter(f"{one.kind} {'stopped' if one.stop else 'killed'}" for one in hits)))
    campaign.note("requests by status", dict(Counter(call.status for call in calls)))
    campaign.at_least("fewest calls in flight at a hit", min((one.in_flight for one in hits), default=0), IN_FLIGHT)
    campaign.equal("hangs: calls without an answer of the gateway", sum(call.status == 0 for call in calls), 0)
    campaign.equal("wrong answers", sum(not call.right for call in calls), 0)
    for stop, allowed in ALLOWED.items():
        seen = Counter(call.status for one in hits if one.stop == stop for call in one.calls)
        name = f"answers other than {allowed} around {'stops' if stop else 'kills'}"
        campaign.equal(name, {status: n for status, n in seen.items() if status not in (*allowed, 0)}, {})
    slow = {stop: [0.0] for stop in (False, True)}
    lost: Counter[int] = Counter()
    early = 0
    for one in hits:
        for call in one.calls:
            if call.sent_s <= one.at_s < call.answered_s:
                slow[one.stop].append(call.answered_s - one.at_s)
                lost[call.status] += not one.stop
            early += call.status == 504 and call.answered_s - call.sent_s < call.deadline_s * 0.9
    campaign.note("statuses of calls in flight at a kill", dict(lost))
    odd = sum(count for status, count in lost.items() if status not in (*LOST, 0))
    campaign.equal(f"calls in flight at a kill answered otherwise than {LOST}", odd, 0)
    campaign.equal("deadlines told before they had passed", early, 0)
    campaign.at_most("slowest answer of a call in flight at a kill, seconds", max(slow[False]), LOST_WITHIN_S)
    campaign.at_most("slowest answer of a call in flight at a stop, seconds", max(slow[True]), STUCK_WITHIN_S)
    for kind, bar in BACK_S.items():
        for stop in (False, True):
            backs = [one.back_s for one in hits if one.kind == kind and one.stop == stop]
            if backs:
                name = f"{kind}: slowest return after a {'stop' if stop else 'kill'}, seconds"
                campaign.at_most(name, max(backs), bar + (STUCK_WITHIN_S if stop else 0))


def prove(campaign: Campaign, place: Path, counts: dict[str, int], hits: int, steady_s: float = STEADY_S) -> None:
    """Serve so many versions of each kind from `place` and hit their workers."""
    kinds: dict[str, str] = {}
    for kind, count in counts.items():
        models = [f"{kind}-{number}" for number in range(count)]
        if models:
            WRITERS[kind]([place / "models" / model for model in models])
        kinds |= dict.fromkeys(models, kind)
    shuffled = list(kinds.items())
    campaign.random.shuffle(shuffled)
    with serve(place / "models", place / "state", within_s=600) as gateway:
        asyncio.run(_drive(campaign, gateway, dict(shuffled), hits, steady_s))
        campaign.equal("quarantined", sum("quarantined" in line for line in gateway.log), 0)


async def _drive(campaign: Campaign, gateway: Gateway, kinds: dict[str, str], total: int, steady_s: float) -> None:
    async with HttpClient(gateway.http, 1) as door:
        index = await settled(door)
    campaign.equal("versions ready", sum(entry["state"] == "READY" for entry in index), len(kinds))
    hits = Hits(campaign, gateway, total)
    await hits.make(kinds, steady_s)
    judge(campaign, hits.made, total)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Hit as many workers as the command line says."""
    counts = {"python": arguments.python, "spi": arguments.spi, "spark": arguments.spark}
    print(f"  about {arguments.kills / sum(counts.values()) * (STEADY_S + 10) / 60:.0f} minutes", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        prove(campaign, Path(temporary), counts, arguments.kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="kills and stops, half of each")
    parser.add_argument("--python", type=int, default=26, help="Python versions")
    parser.add_argument("--spi", type=int, default=12, help="jar versions")
    parser.add_argument("--spark", type=int, default=3, help="Spark versions")
    run("worker-stops", check, parser)
