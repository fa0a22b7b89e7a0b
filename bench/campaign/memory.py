"""Memory of gateway processes: what one and several take, and that a million requests add nothing.

The bulk comes from compiled clients over both doors in turn. Beside it Python clients send what is refused, leave
before their answer, and routes change, which loads and unloads a version. Between two turns the process is looked at.
"""

import argparse
import asyncio
import contextlib
import itertools
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

import grpc
import msgspec
import numpy as np

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import INFER, HttpClient, infer_message
from bench.launch import Gateway, serve
from bench.speed import load

NAME: Final = "one"
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
HEAD: Final = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: h\r\ncontent-length: {len(BODY)}\r\n\r\n"
MESSAGE: Final = infer_message(NAME, {"x": ("FP64", [1], bytes(8))})
REFUSED: Final = (
    ("/v2/models/one/infer", b'{"inputs":[{"name":"y","datatype":"FP64","shape":[1],"data":[0]}]}', 400),
    ("/v2/models/one/infer", b'{"inputs":[{"name":"x","datatype":"FP64","shape":[2],"data":[0]}]}', 400),
    ("/v2/models/one/infer", b"{", 400),
    ("/v2/models/nobody/infer", BODY, 404),
)
LIMIT_MIB: Final = 120.0
SLOPE_SHARE: Final = 0.02
FROM: Final = 100_000
TURN_S: Final = 5
CLIENTS: Final = 16
ASIDE_PAUSE_S: Final = 0.01
CHANGE_S: Final = 4.0
SETTLE_S: Final = 1.5
LONG_AGE: Final = ("--drain-seconds", "60")
"""gRPC connections are asked to move after half of it; h2load takes that for a failure."""
SPREAD: Final = 3
"""So many descriptors or threads more than at first may be a connection that is just being closed."""


class Sample(msgspec.Struct):
    """One look at a process: requests so far, memory, open files and threads."""

    requests: int
    rss_mib: float
    pss_mib: float
    files: int
    threads: int


def memory(pid: int) -> tuple[float, float]:
    """Return RSS and PSS of a process in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return tuple(int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024 for key in ("Rss", "Pss"))  # type: ignore[index,return-value]  # both lines are always there


def look(gateway: Gateway, pid: int) -> Sample:
    """Look at a process."""
    rss, pss = memory(pid)
    here = Path(f"/proc/{pid}")
    return Sample(counted(gateway), rss, pss, len(list((here / "fd").iterdir())), len(list((here / "task").iterdir())))


def counted(gateway: Gateway) -> int:
    """Return all requests that the machine has counted."""
    with urllib.request.urlopen(f"http://{gateway.metrics}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("turnout_requests_total{")))


def processes(gateway: Gateway) -> dict[str, list[int]]:
    """Return the processes of a machine by what they are."""
    found: dict[str, list[int]] = {"parent": [gateway.process.pid]}
    words = {"gateway.main": "gateway", "turnout.control.main": "control", "guard_program": "guard"}
    for pid, command in gateway.descendants().items():
        for word, name in words.items():
            if word in command:
                found.setdefault(name, []).append(pid)
    return found


def bulk(gateway: Gateway, door: str, seconds: int) -> int:
    """Send all that one door takes for a while; return how many were not answered well."""
    if door == "http":
        return load.wrk(gateway.http, [HEAD.encode() + BODY], CLIENTS, seconds).failed
    return load.h2load(gateway.grpc, [MESSAGE], [{}], CLIENTS, seconds).failed


class Aside:
    """What goes on beside the bulk: refused requests, callers that leave, route changes."""

    def __init__(self, gateway: Gateway, folder: Path, *, changes: bool) -> None:
        self.gateway = gateway
        self.refused = self.left = self.changes = 0
        self.odd: list[str] = []
        self._folder = folder
        self._changing = changes
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Go on until `stop`."""
        async with asyncio.TaskGroup() as group:
            for work in (self._refused(), self._http_left(), self._grpc_left(), self._changes()):
                group.create_task(work)

    def stop(self) -> None:
        """End it."""
        self._stop.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _refused(self) -> None:
        async with HttpClient(self.gateway.http, 1) as http:
            for path, body, wanted in itertools.cycle(REFUSED):
                if self._stop.is_set():
                    return
                status = (await http.call("POST", path, body)).status
                self.refused += 1
                if status != wanted:
                    self.odd.append(f"{path}: {status} in place of {wanted}")
                await self._pause(ASIDE_PAUSE_S)

    async def _http_left(self) -> None:
        host, _, port = self.gateway.http.rpartition(":")
        while not self._stop.is_set():
            for sent in (HEAD.encode() + BODY, HEAD.encode() + BODY[:9], HEAD.encode()[:20]):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(sent)
                await writer.drain()
                writer.close()
                self.left += 1
                await self._pause(ASIDE_PAUSE_S)

    async def _grpc_left(self) -> None:
        while not self._stop.is_set():
            async with grpc.aio.insecure_channel(self.gateway.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                infer = channel.unary_unary(INFER)
                for _ in range(20):
                    call = infer(MESSAGE, timeout=10)
                    await asyncio.sleep(0)
                    call.cancel()
                    self.left += 1
                    await self._pause(ASIDE_PAUSE_S)

    async def _changes(self) -> None:
        for number in itertools.count():
            if self._stop.is_set() or not self._changing:
                return
            share = 100 * (number % 50)
            other = f"{NAME}@{2 + number % 2}"  # one of the two is loaded, the other one unloaded
            weights = {f"{NAME}@1": 10_000 - share, other: share}
            versions.write_routes(self._folder, {NAME: {"champion": f"{NAME}@1", "weights": weights}})
            self.changes += 1
            await self._pause(CHANGE_S)


async def grow(campaign: Campaign, gateway: Gateway, folder: Path, requests: int, *, changes: bool) -> list[Sample]:
    """Drive so many requests and return what was seen on the way."""
    (pid,) = processes(gateway)["gateway"]
    aside = Aside(gateway, folder, changes=changes)
    running = asyncio.create_task(aside.run())
    samples: list[Sample] = []
    failed = 0
    for door in itertools.cycle(("http", "grpc")):
        failed += await asyncio.to_thread(bulk, gateway, door, TURN_S)
        await asyncio.sleep(SETTLE_S)
        samples.append(await asyncio.to_thread(look, gateway, pid))
        last = samples[-1]
        print(
            f"  {last.requests} requests: {last.rss_mib:.1f} MiB, {last.files} files, {last.threads} threads",
            flush=True,
        )
        if running.done() or last.requests >= requests:
            break
    aside.stop()
    await running
    campaign.note("refused, left early, route changes", [aside.refused, aside.left, aside.changes])
    campaign.equal("bulk requests that failed", failed, 0)
    campaign.equal("refused requests with another status", aside.odd[:3], [])
    return samples


def judge(campaign: Campaign, samples: list[Sample], requests: int) -> None:
    """Record what the samples between the first hundred thousand and the end say."""
    start = min(FROM, requests // 4)
    late = [sample for sample in samples if sample.requests >= start]
    campaign.note("samples", samples)
    campaign.at_least("requests", samples[-1].requests, requests)
    fitted = np.polynomial.Polynomial.fit([s.requests for s in late], [s.rss_mib for s in late], 1)
    first, last = float(fitted(late[0].requests)), float(fitted(late[-1].requests))
    campaign.at_most(f"growth of RSS from request {start} on, by the fitted line", (last - first) / first, SLOPE_SHARE)
    campaign.at_most("RSS of the gateway process at the end, MiB", samples[-1].rss_mib, LIMIT_MIB)
    for name in ("files", "threads"):
        more = getattr(late[-1], name) - getattr(late[0], name)
        campaign.at_most(f"{name} more than at request {start}", more, SPREAD)


def table(campaign: Campaign, place: Path, counts: list[int]) -> None:
    """Record RSS and PSS of machines of so many processes, warm."""
    versions.write_onnx(place / "models" / NAME, 1.0)
    for count in counts:
        with serve(place / "models", place / f"state-{count}", "--processes", str(count)) as gateway:
            for door in ("http", "grpc"):
                bulk(gateway, door, 2)
            sizes = {name: [memory(pid) for pid in pids] for name, pids in processes(gateway).items()}
        shown = {name: [[round(mib, 1) for mib in size] for size in some] for name, some in sizes.items()}
        campaign.note(f"RSS and PSS in MiB with {count} processes", shown)
        campaign.note(f"PSS of the machine with {count} processes", round(sum(p for s in sizes.values() for _, p in s)))
        campaign.at_most(f"RSS of a gateway process of {count}, MiB", max(r for r, _ in sizes["gateway"]), LIMIT_MIB)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Measure the table, then the growth of one process."""
    with tempfile.TemporaryDirectory() as temporary:
        table(campaign, Path(temporary), arguments.processes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        for number in (1, 2, 3, 4):  # the newest is always loaded
            versions.write_onnx(folder / NAME / str(number), float(number))
        versions.write_routes(folder, {NAME: {"champion": f"{NAME}@1"}})
        with serve(folder, Path(temporary, "state"), *LONG_AGE) as gateway:
            samples = asyncio.run(grow(campaign, gateway, folder, arguments.requests, changes=arguments.changes))
        judge(campaign, samples, arguments.requests)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--changes", action=argparse.BooleanOptionalAction, default=True, help="change routes")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    run("memory", check, parser)
