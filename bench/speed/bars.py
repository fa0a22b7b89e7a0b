"""The bars that the speed tables are held against, and what makes a table trustworthy. Judges; measures nothing."""

import importlib.metadata
import statistics
import subprocess
from collections.abc import Mapping, Sequence

from bench.campaign.harness import Campaign
from bench.speed import workloads
from bench.speed.configs import ON
from bench.speed.counters import Features
from bench.speed.overhead import Overhead
from bench.speed.peers import BENTOML, KSERVE, LITSERVE, MLSERVER
from bench.speed.table import MAX_LOAD_BUSY, MAX_OTHERS, Cell

# Workload, bare handler, and the least share of its rate, all features on, with 32 clients.
AGAINST_BARE = (
    (workloads.HTTP_ROW, workloads.BARE_JSON, 1.0),
    (workloads.GRPC_ROW, workloads.BARE_GRPC, 0.85),
    (workloads.BIG_BINARY, workloads.BARE_ECHO, 0.75),
)
# How many times a peer's rate, HTTP, one row, all features on, with 32 clients.
AGAINST_PEERS = ((MLSERVER, 7.0), (KSERVE, 8.0), (BENTOML, 20.0), (LITSERVE, 11.0))
BATCHING = 8.0
BATCHING_P99 = 3.0
BATCHING_ALONE = 0.95
SPARK = 0.6
OVERHEAD_US = (150.0, 500.0)
OVERHEAD_BESIDE_US = 3000.0
CLIENTS = 32
_LIBRARIES = ("onnxruntime", "numpy", "scikit-learn", "pyspark", "uvicorn", "uvloop", "httptools", "orjson", "grpcio")


def tell_programs(campaign: Campaign) -> None:
    """Note which load programs and libraries run. Raises FileNotFoundError where a program is missing."""
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("\n", 1)[0]
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    campaign.note("load", [wrk, h2load])
    campaign.note("versions", {name: importlib.metadata.version(name) for name in _LIBRARIES})


def hold_trust(campaign: Campaign, cells: Sequence[Cell]) -> None:
    """Hold that every run counts and that the machine was quiet."""
    runs = [run for cell in cells for its in cell.runs.values() for run in its]
    wrong = [f"{cell.workload}, {cell.clients} clients, {name}: {why}" for cell, name, why in _wrong(cells)]
    campaign.note("runs that do not count", wrong)
    campaign.equal("runs that do not count", len(wrong), 0)
    campaign.at_most("load's share of its core, the busiest run", max(run.spent.load for run in runs), MAX_LOAD_BUSY)
    others = statistics.median(run.spent.others for run in runs)
    campaign.at_most("cores taken by others, median of all runs", others, MAX_OTHERS)


def hold_features(campaign: Campaign, seen: Features) -> None:
    """Hold that what is called all features on was at work: split, shadow, and a log of every request."""
    campaign.note("all features on, at work", seen)
    campaign.at_least("answers by the canary", seen.canary, 1)
    campaign.at_least("copies that the shadows answered", seen.shadow_copies, 1)
    campaign.equal("requests neither in the access log nor counted as dropped", seen.unlogged, 0)


def hold(campaign: Campaign, cells: Sequence[Cell]) -> None:
    """Hold the table's ratios against their bars."""
    table = {(cell.workload, cell.clients): cell for cell in cells}
    spent = {
        f"{name}, {clients} clients": {server: round(cell.cpu_us(server), 1) for server in cell.runs}
        for (name, clients), cell in table.items()
    }
    campaign.note("the server's processor time of a request, us", spent)
    for name, bare, bar in AGAINST_BARE:
        campaign.at_least(f"{name}: all features on against {bare}", table[name, CLIENTS].ratio(ON, bare), bar)
    crowd, alone = table[workloads.SLOW, CLIENTS], table[workloads.SLOW, 1]
    without = f"{ON}, batching off"
    campaign.at_least(
        f"{workloads.SLOW}, {CLIENTS} clients: batching against without", crowd.ratio(ON, without), BATCHING
    )
    campaign.at_most(
        f"{workloads.SLOW}, {CLIENTS} clients: p99 with batching against p50 without",
        crowd.p99_ms(ON) / crowd.p50_ms(without),
        BATCHING_P99,
    )
    campaign.at_least(f"{workloads.SLOW}, 1 client: batching against without", alone.ratio(ON, without), BATCHING_ALONE)
    spark = table.get((workloads.SPARK, CLIENTS))
    if spark is not None:
        campaign.at_least(
            f"{workloads.SPARK}, {CLIENTS} in flight, against ONNX over the same door",
            spark.ratio(ON, f"ONNX over the same door, {ON}"),
            SPARK,
        )


def hold_peers(campaign: Campaign, cells: Sequence[Cell]) -> None:
    """Hold how much faster the gateway is than each peer."""
    table = {(cell.workload, cell.clients): cell for cell in cells}
    for peer, bar in AGAINST_PEERS:
        ratio = table[workloads.HTTP_ROW, CLIENTS].ratio(ON, peer.name)
        campaign.at_least(f"{workloads.HTTP_ROW}: all features on against {peer.name}", ratio, bar)


def hold_overhead(campaign: Campaign, found: Mapping[str, Overhead]) -> None:
    """Hold what the gateway adds with one client."""
    alone, beside = found[ON], found[f"{ON}, beside scikit-learn"]
    campaign.at_most("overhead at one client, p50, us", alone.p50_us, OVERHEAD_US[0])
    campaign.at_most("overhead at one client, p99, us", alone.p99_us, OVERHEAD_US[1])
    campaign.at_most("the same beside scikit-learn flat out, p99, us", beside.p99_us, OVERHEAD_BESIDE_US)


def _wrong(cells: Sequence[Cell]) -> list[tuple[Cell, str, str]]:
    return [(cell, name, why) for cell in cells for name, its in cell.runs.items() for run in its for why in run.wrong]
