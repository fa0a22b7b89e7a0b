"""A real Prometheus scrapes the gateway: planted errors are counted exactly, planted delays land in their buckets."""

import argparse
import asyncio
import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient
from bench.launch import Gateway, serve

MODEL: Final = '''"""A model with planted faults and delays."""

import time

import numpy as np


class Planted:
    """Raises on -1, sleeps 0.12 s on -2 and 0.4 s on -3, else answers 0."""

    def predict(self, inputs):
        """Return one value a row."""
        code = inputs["x"][0]
        if code == -1:
            raise RuntimeError("planted")
        time.sleep({-2.0: 0.12, -3.0: 0.4}.get(float(code), 0.0))
        return {"value": np.zeros(len(inputs["x"]))}
'''
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
ERRORS, SHORT, LONG = 300, 150, 30
DELAYS: Final = {0.99: 0.12, 0.9985: 0.4}


def write_model(folder: Path) -> None:
    """Write the planted model for the Python worker."""
    versions.write_python(folder / "planted", 0.0)
    (folder / "planted" / "constant_model.py").write_text(MODEL)
    manifest = json.loads((folder / "planted" / "model.yaml").read_text())
    manifest["options"]["class"] = "constant_model:Planted"
    (folder / "planted" / "model.yaml").write_text(json.dumps(manifest))


@contextlib.contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus over one target while the block runs; yields its address."""
    config = {
        "scrape_configs": [{"job_name": "turnout", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while not up(address):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("prometheus did not scrape the gateway within 30 s")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def up(address: str) -> bool:
    """Tell whether Prometheus has scraped its target."""
    with contextlib.suppress(OSError):
        return any(value == 1 for value in query(address, "up").values())
    return False


def query(address: str, promql: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return an instant vector: sorted labels to value."""
    url = f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
    with urllib.request.urlopen(url, timeout=10) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return {tuple(sorted(sample["metric"].items())): float(sample["value"][1]) for sample in result}


def scalar(address: str, promql: str) -> float:
    """Return the single value of a query, NaN when there is none."""
    return next(iter(query(address, promql).values()), float("nan"))


async def drive(gateway: Gateway, codes: list[float]) -> dict[int, int]:
    """Send one request a code, one at a time; return how often each status came."""
    statuses: dict[int, int] = {}
    async with HttpClient(gateway.http, 1) as http:
        for code in codes:
            body = json.dumps({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [code]}]}).encode()
            status = (await http.infer("planted", body)).status
            statuses[status] = statuses.get(status, 0) + 1
    return statuses


async def mint(gateway: Gateway, count: int) -> int:
    """Ask for `count` names that do not exist; return how many were answered 404."""
    async with HttpClient(gateway.http, 16) as http:
        answers = [await http.infer(f"unknown-{i}", BODY) for i in range(count)]
    return sum(answer.status == 404 for answer in answers)


def exposition(gateway: Gateway) -> str:
    """Return /metrics as text."""
    with urllib.request.urlopen(f"http://{gateway.metrics}/metrics", timeout=10) as answer:
        return bytes(answer.read()).decode()


def series(text: str) -> int:
    """Count the series of an exposition."""
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))


def bucket_of(text: str, value: float) -> tuple[float, float]:
    """Return the request-duration bucket (low, high] that holds `value` seconds."""
    found = re.findall(r'turnout_request_duration_seconds_bucket\{.*?le="([0-9.e+-]+)"', text)
    bounds = sorted({float(bound) for bound in found})
    high = next(bound for bound in bounds if bound >= value)
    return max((bound for bound in bounds if bound < value), default=0.0), high


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Drive planted requests and ask Prometheus about them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(folder / "models")
        codes = [-1.0] * ERRORS + [-2.0] * SHORT + [-3.0] * LONG
        codes += [1.0] * (arguments.requests - len(codes))
        campaign.random.shuffle(codes)
        with serve(folder / "models", folder / "state") as gateway, prometheus(gateway.metrics, folder) as address:
            statuses = asyncio.run(drive(gateway, codes))
            text = exposition(gateway)
            before = series(text)
            campaign.equal("unknown names answered 404", asyncio.run(mint(gateway, 10_000)), 10_000)
            after = exposition(gateway)
            time.sleep(2.5)
            for outcome, wanted in (("ok", arguments.requests - ERRORS), ("fault", ERRORS)):
                got = scalar(address, f'sum(turnout_requests_total{{route="planted",outcome="{outcome}"}})')
                campaign.equal(f"PromQL count of {outcome}", got, float(wanted))
            campaign.equal("clients counted 500s", statuses.get(500), ERRORS)
            inside = scalar(address, 'sum(turnout_request_duration_seconds_count{route="planted"})')
            campaign.equal("PromQL count of the duration histogram", inside, float(arguments.requests))
            for quantile, delay in DELAYS.items():
                rule = 'sum by (le) (turnout_request_duration_seconds_bucket{route="planted"})'
                got = scalar(address, f"histogram_quantile({quantile}, {rule})")
                low, high = bucket_of(text, delay)
                campaign.between(f"p{quantile * 100:g} lies in the bucket of the planted {delay} s", got, low, high)
            unknown = scalar(address, 'sum(turnout_requests_total{route="",outcome="not_found"})')
            campaign.equal("PromQL count of unknown names", unknown, 10_000.0)
            campaign.equal("series that 10,000 unknown names added", series(after) - before, 0)
            campaign.equal("series named for unknown names", len(re.findall("unknown-", exposition(gateway))), 0)
            linted = subprocess.run(
                ["promtool", "check", "metrics"], input=after, capture_output=True, text=True, check=False
            )
            campaign.equal("promtool check metrics", (linted.returncode, linted.stderr.strip()), (0, ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    run("prometheus", check, parser)
