"""Speed on one core, against bare handlers in the same run: every workload, all features on and off, 1 to 256 clients.

The servers run on one core, the load and this process on the other. `bench/speed` has the method: alternating runs,
answers checked before and after, counts compared to the request, and runs that do not count fail the whole.
`--quick` is one short round for those who change the hot path; it leaves Spark out and writes to build/bench.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.campaign.harness import ROOT, Campaign, run
from bench.speed import page, workloads
from bench.speed.bars import hold, hold_features, hold_overhead, hold_trust, tell_programs
from bench.speed.configs import OFF, ON
from bench.speed.cores import stay_beside
from bench.speed.counters import features_at_work
from bench.speed.overhead import Overhead, overhead
from bench.speed.servers import Server, bare_grpc, bare_http, gateway
from bench.speed.table import HTTP, Cell, Entry, measure
from bench.speed.workloads import Workload

WITHOUT = ", batching off"
# No bar is held with 256 clients, so that fewer rounds do.
_FEWER_OF_MANY = 2
BESIDE_ONNX = "ONNX over the same door, "


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Measure all workloads and hold the figures against their bars."""
    stay_beside()
    tell_programs(campaign)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cells, overheads = _light(campaign, arguments, folder / "light")
        if not arguments.quick:
            cells += _spark(arguments, folder / "spark")
    campaign.note("table", cells)
    campaign.note("overhead, microseconds", overheads)
    hold_trust(campaign, cells)
    hold(campaign, cells)
    hold_overhead(campaign, overheads)


def _light(campaign: Campaign, arguments: argparse.Namespace, folder: Path) -> tuple[list[Cell], dict[str, Overhead]]:
    """Measure what runs in the gateway's own process."""
    found, slow_s = workloads.write_light(folder / "models")
    campaign.note("the model of 2 ms takes, in ms", round(slow_s * 1000, 3))
    with contextlib.ExitStack() as running:
        gateways = [running.enter_context(gateway(name, folder / "models", folder / name)) for name in (ON, OFF)]
        bare = _bare(running, folder)
        cells: list[Cell] = []
        for workload in found:
            entries = _entries(workload, gateways, bare)
            if workload.name == workloads.SLOW:
                entries |= _unbatched(workload, gateways)
            cells += _measure(workload.name, entries, arguments)
        by_name = {workload.name: workload for workload in found}
        overheads = {
            f"{server.name}{'' if beside is None else ', beside scikit-learn'}": overhead(
                _entry(by_name[workloads.HTTP_ROW], server),
                arguments.seconds * arguments.rounds,
                None if beside is None else _entry(beside, server),
            )
            for server in gateways
            for beside in (None, by_name[workloads.SKLEARN])
        }
        metrics = gateways[0].metrics
        assert metrics is not None
        hold_features(campaign, features_at_work(metrics, folder / ON / "access.log"))
    return cells, overheads


def _spark(arguments: argparse.Namespace, folder: Path) -> list[Cell]:
    """Measure Spark's worker, and beside it an ONNX model behind the same door."""
    spark, onnx = workloads.write_spark(folder / "models")
    with contextlib.ExitStack() as running:
        gateways = [running.enter_context(gateway(name, folder / "models", folder / name)) for name in (ON, OFF)]
        entries = _entries(spark, gateways, {})
        entries |= {f"{BESIDE_ONNX}{server.name}": _entry(onnx, server) for server in gateways}
        return _measure(spark.name, entries, arguments)


def _bare(running: contextlib.ExitStack, folder: Path) -> dict[str, Server]:
    environment = {"BARE_MODEL": str(folder / "models" / workloads.CANCER / "model.onnx")}
    names = (workloads.BARE_JSON, workloads.BARE_ECHO, workloads.BARE_GRPC)
    return {
        workloads.BARE_JSON: running.enter_context(
            bare_http(names[0], "bench.bare.asgi", environment, folder / "bare-json.log")
        ),
        workloads.BARE_ECHO: running.enter_context(
            bare_http(names[1], "bench.bare.echo", environment, folder / "bare-echo.log")
        ),
        workloads.BARE_GRPC: running.enter_context(bare_grpc(names[2], environment, folder / "bare-grpc.log")),
    }


def _entries(workload: Workload, gateways: Iterable[Server], bare: dict[str, Server]) -> dict[str, Entry]:
    entries = {server.name: _entry(workload, server) for server in gateways}
    if workload.bare is not None and workload.bare_requests is not None:
        entries[workload.bare] = Entry(bare[workload.bare], workload.door, workload.bare_requests)
    return entries


def _entry(workload: Workload, server: Server) -> Entry:
    return Entry(server, workload.door, workload.requests, path=workload.path, route=workload.model)


def _unbatched(workload: Workload, gateways: Iterable[Server]) -> dict[str, Entry]:
    path = f"/v2/models/{workloads.UNBATCHED}/infer"
    return {
        f"{server.name}{WITHOUT}": Entry(server, HTTP, workload.requests, path=path, route=workloads.UNBATCHED)
        for server in gateways
    }


def _measure(name: str, entries: dict[str, Entry], arguments: argparse.Namespace) -> list[Cell]:
    rounds = {1: arguments.rounds, 32: arguments.rounds}
    if not arguments.quick:
        rounds[256] = max(1, arguments.rounds - _FEWER_OF_MANY)
    return measure(name, entries, rounds, seconds=arguments.seconds)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, without Spark and 256 clients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of each run")
    quick = parser.parse_known_args()[0].quick
    if quick:
        parser.set_defaults(rounds=1, seconds=1)
        run("speed", check, parser, results=ROOT / "build" / "bench")
    else:
        run("speed", check, parser, after=page.write)


if __name__ == "__main__":
    main()
