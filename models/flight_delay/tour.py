"""`make run`: trains the flight-delay versions, serves them behind one route, and flies real flights through it.

Stays up until Ctrl-C and leaves no process behind; with `--once` it ends by itself: status 0, or 1 when a request
failed or a comparison among the served versions is missing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Final

import numpy as np
import pandas as pd
from rich.console import Console

from adapters.interface import LoadFailed
from adapters.jvm.toolchain import compiler_of, find_java
from bench.client import HttpClient
from models.flight_delay import data, display, lineup, summary, training
from models.flight_delay.drive import BATCH_ROWS, Call, Driver, plan
from models.flight_delay.features import LABEL, MODEL
from models.flight_delay.lineup import CHAMPION, Part
from models.flight_delay.processes import ROOT
from models.flight_delay.scrape import Seen, scrape
from models.flight_delay.server import NotServing, Server, serving
from models.flight_delay.tally import Tally
from models.flight_delay.wire import Flights

BUILD: Final = ROOT / "build" / "flight_delay"
RESULT: Final = BUILD / "summary.json"
# Flights that every version is asked past the split, so that AUCs compare like with like.
SAME_FLIGHTS: Final = 4096
SHADOW_READY_S: Final = 120.0
SETTLE_S: Final = 15.0
EVERY_S: Final = 0.5


async def java_home(console: Console) -> str | None:
    """Return the home of a usable JDK; None after saying what is missing."""
    try:
        java = await find_java(os.environ)
        compiler_of(java)
    except LoadFailed as error:
        console.print(f"Spark is left out: {error}. The tour runs with the other two versions.", soft_wrap=True)
        return None
    return str(java.home)


async def tour(console: Console, *, once: bool, most: int | None) -> int:
    """Run the whole tour over at most so many flights and return the exit status."""
    home = await java_home(console)
    environment = {"JAVA_HOME": home} if home else {}
    parts = lineup.parts(with_spark=home is not None)
    programs = tuple(dict.fromkeys(part.program for part in parts))
    bars = display.Training(console)
    with bars.shown():
        trained = await training.ensure(programs, BUILD, environment, bars.told)
    folder = BUILD / "repository"
    lineup.assemble(folder, parts, trained)
    console.print(f"starting the server: waiting for {', '.join(part.runtime for part in parts)}")
    state = BUILD / ("state-" + "-".join(path.name[-8:] for path in trained.values()))
    async with serving(folder, state, BUILD / "server.log", environment) as server:
        announce(console, server)
        console.print(f"serving {len(parts)} versions of {MODEL} from {folder.relative_to(ROOT)}")
        result = await show(console, server, parts, most)
        if once:
            return 1 if result["failed"] else 0
        console.print("\nserving on; Ctrl-C ends it")
        await asyncio.Event().wait()
    return 0


def announce(console: Console, server: Server) -> None:
    """Print the start-up table, the ready line and where to go."""
    text = server.log.read_text(errors="replace")
    console.print(text.rstrip(), markup=False, soft_wrap=True)
    console.print(server.line, markup=False, soft_wrap=True)
    console.print(f"  predict   http://{server.http}/v2/models/{MODEL}/infer", soft_wrap=True)
    console.print(f"  metadata  http://{server.http}/v2/models/{MODEL}", soft_wrap=True)
    console.print(f"  gRPC      {server.grpc}")
    console.print(f"  metrics   http://{server.metrics}/metrics")
    console.print(f"  routes    http://{server.control}/v1/routes/{MODEL}")
    console.print(f"  log       {server.log.relative_to(ROOT)}")


async def show(console: Console, server: Server, parts: tuple[Part, ...], most: int | None) -> dict[str, Any]:
    """Drive the flights, show what happens, and return the summary, which is printed and written as well."""
    frame = data.later(data.flights()).head(most)
    flights = Flights(frame)
    tally = Tally(flights.count)
    await wait_ready(console, server, parts)
    driver = Driver(server.http, server.grpc, flights, tally, CHAMPION)
    table = display.Driving(console, parts, tally, flights.count)
    began = time.monotonic()
    try:
        with table.shown():
            watching = asyncio.create_task(watch(server, table))
            try:
                await driver.drive(plan(flights.count))
            finally:
                watching.cancel()
            seconds = time.monotonic() - began
            table.update(await settled(server))
        same = await ask_all(driver, parts, frame)
    finally:
        await driver.close()
    result = summary.summarise(parts, frame, tally, await scrape(server.metrics), same, seconds)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    summary.show(console, result)
    console.print(f"the same as JSON: {RESULT.relative_to(ROOT)}")
    return result


async def wait_ready(console: Console, server: Server, parts: tuple[Part, ...]) -> None:
    """Wait until every version answers that it is ready: a Spark version may need longer than the ready line."""
    async with HttpClient(server.http, 1) as client:
        for part in parts:
            path = f"/v2/models/{MODEL}/versions/{part.version}/ready"
            told = False
            until = time.monotonic() + SHADOW_READY_S
            while (await client.call("GET", path)).status != 200:
                if time.monotonic() > until:
                    console.print(f"version {part.version} ({part.runtime}) did not get ready", style="red")
                    break
                if not told:
                    console.print(f"waiting for version {part.version} ({part.runtime})")
                    told = True
                await asyncio.sleep(EVERY_S)


async def watch(server: Server, table: display.Driving) -> None:
    """Keep the live table fresh."""
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            table.update(await scrape(server.metrics))
        await asyncio.sleep(EVERY_S)


async def settled(server: Server) -> Seen:
    """Return the metrics once the shadow has caught up, or when its time is over."""
    before = await scrape(server.metrics)
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        await asyncio.sleep(2 * EVERY_S)
        now = await scrape(server.metrics)
        if now == before:
            break
        before = now
    return before


async def ask_all(driver: Driver, parts: tuple[Part, ...], frame: pd.DataFrame) -> summary.Same:
    """Ask every version, past the split, for the last flights of the year."""
    start = max(0, len(frame) - SAME_FLIGHTS)
    late = {part.version: np.full(len(frame), np.nan) for part in parts}
    forms = ("json", "grpc", "binary", "grpc")
    for part in parts:
        calls = (
            Call(at, min(at + BATCH_ROWS, len(frame)), forms[number % len(forms)])
            for number, at in enumerate(range(start, len(frame), BATCH_ROWS))
        )
        await driver.pinned(calls, part.version, late[part.version])
    return summary.Same(frame[LABEL].to_numpy()[start:], {version: found[start:] for version, found in late.items()})


async def until_told(console: Console, *, once: bool, most: int | None) -> int:
    """Run the tour; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await tour(console, once=once, most=most)
    except (training.TrainingFailed, NotServing) as error:
        console.print(str(error), style="red", markup=False)
        return 1


def main(arguments: list[str] | None = None) -> int:
    """Read the flags and run. A Ctrl-C is the usual end of a tour without `--once`."""
    parser = argparse.ArgumentParser(prog="make run ARGS=…", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end by itself after the tour")
    parser.add_argument("--flights", type=int, metavar="N", help="drive the first N flights only (default: all)")
    given = parser.parse_args(arguments)
    console = display.console()
    try:
        return asyncio.run(until_told(console, once=given.once, most=given.flights))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; no process is left")
        return 130 if given.once else 0


if __name__ == "__main__":
    sys.exit(main())
