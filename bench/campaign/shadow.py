"""Shadows: planted differences are counted to the row, and a hung shadow costs the champion nothing."""

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient
from bench.launch import Gateway, serve

ROWS, WRONG, ROWS_A_REQUEST = 20_000, 400, 20
HUNG: Final = '''"""A model that never answers."""

import time


class Hung:
    """Sleeps through every call."""

    def predict(self, inputs):
        """Never return."""
        while True:
            time.sleep(60)
'''


def write_step(folder: Path) -> None:
    """Write an ONNX version that answers 1 where x > 0.5, else 0."""
    from onnx import TensorProto, helper  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("Greater", ["x", "half"], ["wrong"]),
        helper.make_node("Cast", ["wrong"], ["value"], to=11),
    ]
    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor("half", TensorProto.DOUBLE, [], [0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_hung(folder: Path) -> None:
    """Write a version that hangs on every call."""
    versions.write_python(folder, 0.0)
    (folder / "constant_model.py").write_text(HUNG)
    manifest = json.loads((folder / "model.yaml").read_text())
    manifest["options"]["class"] = "constant_model:Hung"
    (folder / "model.yaml").write_text(json.dumps(manifest))


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """Return the sum of a metric's series that carry these labels."""
    with urllib.request.urlopen(f"http://{gateway.metrics}/metrics", timeout=10) as answer:
        text = bytes(answer.read()).decode()
    total = 0.0
    for found in re.finditer(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
        if all(f'{label}="{value}"' in found[1] for label, value in labels.items()):
            total += float(found[2])
    return total


async def send_rows(gateway: Gateway, values: list[float]) -> None:
    """Send all rows, waiting for the shadow now and then so that none is dropped."""
    async with HttpClient(gateway.http, 1) as http:
        for start in range(0, len(values), ROWS_A_REQUEST):
            data = values[start : start + ROWS_A_REQUEST]
            body = json.dumps(
                {"inputs": [{"name": "x", "datatype": "FP64", "shape": [len(data)], "data": data}]}
            ).encode()
            answer = await http.infer("step", body)
            assert answer.status == 200, answer.body
            if start % (ROWS_A_REQUEST * 50) == 0:
                await settle(gateway, start + len(data))


async def settle(gateway: Gateway, rows: int) -> None:
    """Wait until `rows` rows have been compared, at most 20 s."""
    until = time.monotonic() + 20
    while metric(gateway, "turnout_shadow_comparisons_total", route="step") < rows and time.monotonic() < until:
        await asyncio.sleep(0.05)


async def latencies(gateway: Gateway, route: str, requests: int) -> list[float]:
    """Return the seconds of sequential requests; every one must succeed."""
    body = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
    taken: list[float] = []
    async with HttpClient(gateway.http, 1) as http:
        for _ in range(requests):
            before = time.perf_counter()
            answer = await http.infer(route, body)
            taken.append(time.perf_counter() - before)
            assert answer.status == 200, answer.body
    return taken


def p99(values: list[float]) -> float:
    """Return the 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)]


def planted(campaign: Campaign, folder: Path, state: Path) -> None:
    """A shadow that is wrong on exactly 400 of 20,000 rows."""
    versions.write_onnx(folder / "step" / "1", 0.0)
    write_step(folder / "step" / "2")
    shadows = [{"version": "step@2", "sample": 10_000, "compare": {"value": "exact"}}]
    versions.write_routes(folder, {"step": {"champion": "step@1", "shadows": shadows}})
    values = [1.0] * WRONG + [0.0] * (ROWS - WRONG)
    campaign.random.shuffle(values)
    with serve(folder, state) as gateway:
        asyncio.run(send_rows(gateway, values))
        asyncio.run(settle(gateway, ROWS))
        counts = {
            verdict: metric(gateway, "turnout_shadow_comparisons_total", route="step", verdict=verdict)
            for verdict in ("agree", "disagree", "error", "incomparable")
        }
        campaign.equal("rows that disagree", counts["disagree"], float(WRONG))
        campaign.equal("rows that agree", counts["agree"], float(ROWS - WRONG))
        campaign.equal("rows compared in all", sum(counts.values()), float(ROWS))
        requests = metric(gateway, "turnout_shadow_requests_total", route="step")
        campaign.equal("copies sent", requests, float(ROWS / ROWS_A_REQUEST))


def hung(campaign: Campaign, folder: Path, state: Path, rounds: int) -> None:
    """A shadow that never answers, beside a route without one."""
    versions.write_onnx(folder / "calm" / "1", 0.0)
    write_hung(folder / "hung" / "1")
    versions.write_onnx(folder / "hung" / "2", 0.0)
    routes = {
        "plain": {"champion": "calm@1"},
        "shadowed": {"champion": "calm@1", "shadows": [{"version": "hung@1", "sample": 10_000}]},
    }
    versions.write_routes(folder, routes)
    with serve(folder, state) as gateway:
        ratios = []
        for _ in range(rounds):
            without = p99(asyncio.run(latencies(gateway, "plain", 2000)))
            with_ = p99(asyncio.run(latencies(gateway, "shadowed", 2000)))
            ratios.append(with_ / without)
        campaign.note("champion p99 with a hung shadow over without, by round", ratios)
        campaign.at_most("champion p99 with a hung shadow over without, median", statistics.median(ratios), 1.1)
        failed = metric(gateway, "turnout_requests_total", route="shadowed") - metric(
            gateway, "turnout_requests_total", route="shadowed", outcome="ok"
        )
        campaign.equal("requests that failed beside a hung shadow", failed, 0.0)
        campaign.at_least("copies dropped and counted", metric(gateway, "turnout_dropped_total"), 1)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Run both shadow checks."""
    with tempfile.TemporaryDirectory() as temporary:
        planted(campaign, Path(temporary, "planted"), Path(temporary, "state-1"))
        hung(campaign, Path(temporary, "hung"), Path(temporary, "state-2"), arguments.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    run("shadow", check, parser)
