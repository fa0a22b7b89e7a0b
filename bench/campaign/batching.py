"""What gathering requests brings: 32 clients, and one, on a model of 2 ms of processor time a call, up to 64 rows.

The same model twice, with `batching: {max_rows: 64}` and with `batching: false`, each in a gateway of its own. Servers
on cpu 0, load on cpu 1, alternating rounds, medians of all rounds; every answer counted must be a success.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

import msgspec

from bench import lines, steady, versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient
from bench.launch import serve

CALL_S: Final = 2e-3
MOST_ROWS: Final = 64
CLIENTS: Final = 32
CHECKED: Final = 4000
GATHERED: Final = "gathered"
ALONE: Final = "alone"
BATCHING: Final = {GATHERED: {"max_rows": MOST_ROWS}, ALONE: False}
PATH: Final = "/v2/models/steady/infer"
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Load(msgspec.Struct, frozen=True):
    """What one round of load saw."""

    per_s: float
    p50_s: float
    p99_s: float


def wrk(url: str, clients: int, seconds: int, script: Path) -> Load:
    """Load `url` from cpu 1; raises when any request failed."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    per_s = re.search(r"Requests/sec:\s+([\d.]+)", text)
    shares = {
        share: float(number) * _UNITS[unit] for share, number, unit in re.findall(r"(\d+)%\s+([\d.]+)(\w+)", text)
    }
    assert per_s, text
    return Load(float(per_s[1]), shares["50"], shares["99"])


def write_script(path: Path) -> Path:
    """Write a wrk script that sends other numbers with each request."""
    tensor = f'{{"name":"{versions.INPUT}","datatype":"FP64","shape":[1],"data":['
    path.write_text(
        "local i = 0\nlocal h = {['Content-Type']='application/json'}\n"
        "function request()\n  i = i % 1000 + 1\n"
        f"  return wrk.format('POST', nil, h, '{{\"inputs\":[{tensor}' .. i .. ']}}]}}')\nend\n"
    )
    return path


async def wrong_answers(address: str) -> int:
    """Ask from 32 clients at once, each request with a number of its own; return how many answers are not its line."""
    wrong = 0

    async def ask(client: HttpClient, numbers: range) -> None:
        nonlocal wrong
        for number in numbers:
            tensor = {"name": versions.INPUT, "datatype": "FP64", "shape": [2], "data": [number, -number]}
            answer = await client.infer("steady", msgspec.json.encode({"inputs": [tensor]}))
            values = answer.json()["outputs"][0]["data"] if answer.status == 200 else []
            wrong += values != [lines.value_at(number), lines.value_at(-number)]

    async with HttpClient(address, CLIENTS) as client:
        await asyncio.gather(*(ask(client, range(first, CHECKED, CLIENTS)) for first in range(CLIENTS)))
    return wrong


def calls_and_rows(address: str) -> tuple[float, float]:
    """Return how many calls the model answered so far, and their rows."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = dict(re.findall(r'turnout_batch_rows_(count|sum)\{[^}]*model="steady"[^}]*\} (\S+)', text))
    return float(found["count"]), float(found["sum"])


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Compare the same model with its requests gathered, and each alone."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        script = write_script(folder / "rows.lua")
        first = folder / GATHERED / "steady" / "1"
        steady.write(first, CALL_S)
        model = (first / "model.onnx").read_bytes()
        one, most = steady.processor_s(model, 1), steady.processor_s(model, MOST_ROWS)
        campaign.between("processor time of one row, ms", one * 1e3, CALL_S * 1e3 * 0.9, CALL_S * 1e3 * 1.15)
        campaign.at_most(f"processor time of {MOST_ROWS} rows, ratio to one", most / one, 1.1)
        gateways = {}
        for name, batching in BATCHING.items():
            version = folder / name / "steady" / "1"
            version.mkdir(parents=True, exist_ok=True)
            (version / "model.onnx").write_bytes(model)
            (version / "model.yaml").write_text(json.dumps({"batching": batching}))
            gateways[name] = running.enter_context(serve(folder / name, folder / f"state-{name}", cpus="0"))
        for name, gateway in gateways.items():
            campaign.equal(f"{name}: wrong answers of {CHECKED}", asyncio.run(wrong_answers(gateway.http)), 0)
        many: dict[str, list[Load]] = {name: [] for name in gateways}
        single: dict[str, list[Load]] = {name: [] for name in gateways}
        rows_a_call: dict[str, list[float]] = {name: [] for name in gateways}
        for _ in range(arguments.rounds):
            for name, gateway in gateways.items():
                calls, rows = calls_and_rows(gateway.metrics)
                many[name].append(wrk(f"http://{gateway.http}{PATH}", CLIENTS, arguments.seconds, script))
                more_calls, more_rows = calls_and_rows(gateway.metrics)
                rows_a_call[name].append((more_rows - rows) / (more_calls - calls))
                single[name].append(wrk(f"http://{gateway.http}{PATH}", 1, arguments.seconds, script))
    report(campaign, many, single, rows_a_call)


def report(
    campaign: Campaign, many: dict[str, list[Load]], single: dict[str, list[Load]], rows: dict[str, list[float]]
) -> None:
    """Turn the rounds into figures."""
    for name, loads in many.items():
        campaign.note(f"{name}: requests a second, {CLIENTS} clients", [load.per_s for load in loads])
        campaign.note(f"{name}: p50 and p99 in ms", [(load.p50_s * 1e3, load.p99_s * 1e3) for load in loads])
        campaign.note(f"{name}: requests a second, one client", [load.per_s for load in single[name]])
        campaign.note(f"{name}: rows a call, {CLIENTS} clients", rows[name])
    middle = {name: statistics.median(load.per_s for load in loads) for name, loads in many.items()}
    campaign.at_least(f"{CLIENTS} clients, throughput with gathering to without", middle[GATHERED] / middle[ALONE], 8)
    p99_s = statistics.median(load.p99_s for load in many[GATHERED])
    p50_s = statistics.median(load.p50_s for load in many[ALONE])
    campaign.at_most("p99 with gathering, ratio to the p50 without", p99_s / p50_s, 3)
    alone = {name: statistics.median(load.per_s for load in loads) for name, loads in single.items()}
    campaign.at_least("one client, throughput with gathering to without", alone[GATHERED] / alone[ALONE], 0.95)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    run("batching", check, parser)


if __name__ == "__main__":
    main()
