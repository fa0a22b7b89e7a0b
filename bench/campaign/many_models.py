"""50 models at a start, of every runtime, some broken and some slow: who answers when, and what starts at once.

Bars: at a restart quick models answer while a slow one still loads, at a first start once all is tried or 30 s are
gone, and broken ones delay none; a load delays no other model's answers. (Workers start two at a time:
tests/unit/gateway/parent/test_workers.py.)
"""

import argparse
import asyncio
import contextlib
import json
import math
import socket
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient
from bench.launch import Gateway, serve

QUICK: Final = 36
PYTHON: Final = 4
JVM: Final = 5
SLOW_S: Final = 20.0
READY_S: Final = 120.0
# At a first start nothing is routed before all is tried, for at most 30 s (control.first_routes_s).
FIRST_S: Final = {"first start": 45.0, "restart": SLOW_S / 2}
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
SLOW: Final = f'''"""A model whose load takes long."""

import time

import numpy as np


class Slow:
    """Answers zeros, once it is there."""

    def load(self, path, options):
        """Take {SLOW_S:g} s."""
        time.sleep({SLOW_S!r})

    def predict(self, inputs):
        """Return zeros."""
        return {{"value": np.zeros(len(inputs["x"]))}}
'''


def write_slow(folder: Path) -> None:
    """Write a Python version that loads slowly."""
    folder.mkdir(parents=True)
    (folder / "slow_model.py").write_text(SLOW)
    options = {"class": "slow_model:Slow"}
    manifest = {"runtime": "python", "artifact": ".", "options": options, "signature": versions.signature()}
    (folder / "model.yaml").write_text(json.dumps(manifest))


def write_models(folder: Path, quick: int, python: int, jvm: int) -> dict[str, str]:
    """Write the models; return what each has to come to."""
    names = {f"quick{number}": "ready" for number in range(quick)}
    for number in range(quick):
        versions.write_onnx(folder / f"quick{number}", 1.0)
    for number in range(python):
        versions.write_python(folder / f"py{number}", 1.0)
        names[f"py{number}"] = "ready"
    for number in range(jvm):
        versions.write_spi(folder / f"jvm{number}", 1.0)
        names[f"jvm{number}"] = "ready"
    write_slow(folder / "slow")
    for name, text in (("broken0", b"no model"), ("broken1", b""), ("broken2", b"\x08\x07" * 100)):
        (folder / name).mkdir()
        (folder / name / "model.onnx").write_bytes(text)
    versions.write_python(folder / "broken3", 1.0)
    (folder / "broken3" / "constant_model.py").write_text("raise RuntimeError('broken')\n")
    return {**names, "slow": "ready", **dict.fromkeys((f"broken{number}" for number in range(4)), "failed")}


class Seen:
    """What was seen from outside: when each route first answered, and how many JVMs were starting at once."""

    def __init__(self) -> None:
        self.answered_s: dict[str, float] = {}
        self.starting: int = 0


async def watch_routes(gateway: Gateway, names: Iterable[str], seen: Seen, began: float) -> None:
    """Ask every route until it has answered once; routes of broken models never do."""
    async with HttpClient(gateway.http, 4) as client:
        waiting = list(names)
        while waiting and time.monotonic() - began < READY_S:
            for name in list(waiting):
                try:
                    answer = await client.infer(name, BODY)
                except OSError:
                    break  # nobody listens yet
                if answer.status == 200:
                    seen.answered_s[name] = time.monotonic() - began
                    waiting.remove(name)
            await asyncio.sleep(0.05)


async def watch_starts(gateway: Gateway, seen: Seen, done: asyncio.Event) -> None:
    """Count JVMs that run and whose versions the gateway process does not have ready yet."""
    while not done.is_set():
        running = sum("dev.turnout.worker.Main" in command for command in gateway.descendants().values())
        try:
            async with HttpClient(gateway.metrics, 1) as client:
                states = (await client.call("GET", "/snapshot")).json()["versions"]
        except OSError:
            states = {}
        loaded = sum(state == "ready" for name, state in states.items() if name.startswith("jvm"))
        seen.starting = max(seen.starting, running - loaded)
        await asyncio.sleep(0.05)


async def beside_a_load(gateway: Gateway, folder: Path) -> tuple[float, float]:
    """Return the slowest of 300 answers without, and beside, a slow model's load, which a caller asks for."""

    async def slowest(client: HttpClient) -> float:
        durations = []
        for _ in range(300):
            began = time.monotonic()
            await client.infer("quick0", BODY)
            durations.append(time.monotonic() - began)
            await asyncio.sleep(0.005)
        return statistics.quantiles(durations, n=100)[98]

    async with HttpClient(gateway.http, 2) as client:
        alone = await slowest(client)
        write_slow(folder / "late")
        load = asyncio.create_task(client.call("POST", "/v2/repository/models/late/load", b"{}", within_s=120))
        await asyncio.sleep(1)
        beside = await slowest(client)
        if load.done():
            raise RuntimeError(f"the load was over too soon: {load.result()}")
        if (await load).status != 200:
            raise RuntimeError(f"the load failed: {load.result()}")
    return alone, beside


async def start(campaign: Campaign, gateway: Gateway, name: str, states: dict[str, str]) -> None:
    """Watch a gateway come up."""
    seen, done, began = Seen(), asyncio.Event(), time.monotonic()
    starts = asyncio.create_task(watch_starts(gateway, seen, done))
    await watch_routes(gateway, [name for name, state in states.items() if state == "ready"], seen, began)
    done.set()
    await starts
    quick = [seconds for model, seconds in seen.answered_s.items() if model.startswith("quick")]
    wanted = sum(state == "ready" for state in states.values())
    campaign.equal(f"{name}: models that answered", len(seen.answered_s), wanted)
    campaign.at_most(f"{name}: seconds until every quick model answered", max(quick, default=math.nan), FIRST_S[name])
    campaign.note(f"{name}: seconds until every Python and JVM model answered", _latest(seen, ("py", "jvm")))
    campaign.note(f"{name}: seconds until the slow model answered", _latest(seen, ("slow",)))
    campaign.note(f"{name}: JVMs running, and not yet ready in the gateway process, at most", seen.starting)


async def load_late(campaign: Campaign, gateway: Gateway, folder: Path) -> None:
    """Have one more slow model loaded while others are asked."""
    alone, beside = await beside_a_load(gateway, folder)
    campaign.note("p99 ms of an answer alone, beside a load", [round(alone * 1000, 2), round(beside * 1000, 2)])
    campaign.at_most("p99 of an answer beside a load, times that without", beside / alone, 2.0)


def _latest(seen: Seen, prefixes: tuple[str, ...]) -> float:
    found = [seconds for name, seconds in seen.answered_s.items() if name.startswith(prefixes)]
    return round(max(found, default=math.nan), 1)


def check(campaign: Campaign, _: argparse.Namespace) -> None:
    """Start a gateway with 50 models on known ports, and ask while it comes up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        states = write_models(folder, QUICK, PYTHON, JVM)
        campaign.note("models", len(states))
        for name in ("first start", "restart"):
            with begun(folder, Path(temporary, "state")) as gateway:
                asyncio.run(start(campaign, gateway, name, states))
                if name == "restart":
                    asyncio.run(load_late(campaign, gateway, folder))


@contextlib.contextmanager
def begun(folder: Path, state: Path) -> Iterator[Gateway]:
    """Start a gateway and hand it out before it is ready: its ports are known."""
    ports = [str(free_port()) for _ in range(2)]
    flags = ("--http-port", ports[0], "--metrics-port", ports[1])
    with serve(folder, state, *flags, ready=False) as gateway:
        gateway.http, gateway.metrics = (f"127.0.0.1:{port}" for port in ports)
        yield gateway


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    run("many-models", check)
