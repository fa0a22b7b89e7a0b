"""The split seen through the sockets: shares, exact zero, stickiness over a ramp, doors, processes, a restart."""

import argparse
import asyncio
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from bench import versions
from bench.campaign.harness import Campaign, binomial_interval, run
from bench.client import GrpcClient, HttpClient, decode_answer, infer_message
from bench.launch import Gateway, serve

BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
MESSAGE: Final = infer_message("split", {"x": ("FP64", [1], bytes(8))})
IN_FLIGHT: Final = 64


async def ask(gateway: Gateway, requests: int, keys: list[str] | None = None, *, door: str = "http") -> list[int]:
    """Send requests (one a key, or unkeyed) and return the version that answered each, checked against its constant."""
    answers = [0] * (len(keys) if keys else requests)
    pending = iter(range(len(answers)))

    async def work() -> None:
        for index in pending:
            headers = {"x-user-id": keys[index]} if keys else {}
            if door == "http":
                answer = await http.infer("split", BODY, headers)
                assert answer.status == 200, answer.body
                value = float(answer.json()["outputs"][0]["data"][0])
            else:
                answer = await rpc.infer(MESSAGE, headers)
                assert answer.status == 0, answer.body
                value = memoryview(decode_answer(answer.body).raw_output_contents[0]).cast("d")[0]
            number = int(answer.headers["turnout-version"].partition("@")[2])
            assert number == value, "the answer is not that of the version named in its header"
            answers[index] = number

    async with (
        HttpClient(gateway.http, IN_FLIGHT) as http,
        GrpcClient(gateway.grpc, 4) as rpc,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return answers


def set_weights(folder: Path, gateway: Gateway, weights: dict[int, int], *, sticky: bool) -> None:
    """Write the route and wait until an answer carries a newer generation."""
    before = asyncio.run(generation(gateway))
    route: dict[str, object] = {"champion": "split@1", "weights": {f"split@{n}": w for n, w in weights.items()}}
    if sticky:
        route["sticky"] = {"header": "x-user-id"}
    versions.write_routes(folder, {"split": route})
    until = time.monotonic() + 20
    while asyncio.run(generation(gateway)) == before:
        if time.monotonic() > until:
            raise RuntimeError("the new weights did not take effect within 20 s")
        time.sleep(0.05)
    time.sleep(1.0)  # "visible everywhere within 1 s" is the promise that this check builds on


async def generation(gateway: Gateway) -> int:
    """Return the generation that answers carry."""
    async with HttpClient(gateway.http, 1) as http:
        return int((await http.infer("split", BODY)).headers["turnout-generation"])


def shares(
    campaign: Campaign, folder: Path, gateway: Gateway, label: str, weights: dict[int, int], requests: int
) -> None:
    """Every variant's share lies inside its 99.9 % binomial interval; a zero weight is never drawn."""
    set_weights(folder, gateway, weights, sticky=False)
    counted = Counter(asyncio.run(ask(gateway, requests)))
    for number, weight in weights.items():
        if weight == 0:
            campaign.equal(f"{label}: requests drawn to zero-weight split@{number} of {requests}", counted[number], 0)
            continue
        low, high = binomial_interval(weight / 10_000, requests)
        campaign.between(
            f"{label}: share of split@{number} at {weight} of 10,000", counted[number] / requests, low, high
        )


def ramp(campaign: Campaign, folder: Path, gateway: Gateway, keys: list[str]) -> list[int]:
    """Walk sticky weights up and down; return the versions by key at the last step."""
    steps = [{1: 9900, 2: 100}, {1: 8500, 2: 500, 3: 1000}, {1: 4000, 2: 2500, 3: 3500}]
    steps += [
        {1: 2000, 2: 4000, 3: 4000},
        {1: 5000, 2: 4000, 3: 1000},
        {1: 9500, 2: 500, 3: 0},
        {1: 7000, 2: 1500, 3: 1500},
    ]
    left = 0
    previous: list[int] = []
    weights: dict[int, int] = {}
    for step, following in enumerate(steps):
        set_weights(folder, gateway, following, sticky=True)
        now = asyncio.run(ask(gateway, 0, keys, door="grpc" if step % 2 else "http"))
        growing = {n for n in following if n != 1 and weights.get(n, 0) <= following[n]}
        left += (
            sum(1 for was, is_ in zip(previous, now, strict=True) if was in growing and is_ != was) if previous else 0
        )
        previous, weights = now, following
    campaign.equal(f"keys that left a growing variant ({len(keys)} keys, {len(steps)} steps)", left, 0)
    return previous


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Run all split checks over a gateway of two processes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, state = Path(temporary, "models"), Path(temporary, "state")
        for number in range(1, 6):
            versions.write_onnx(folder / "split" / str(number), float(number))
        versions.write_routes(folder, {"split": {"champion": "split@1", "weights": {"split@1": 10_000}}})
        keys = [f"user-{campaign.random.getrandbits(48):x}" for _ in range(arguments.keys)]
        with serve(folder, state, "--processes", "2") as gateway:
            shares(campaign, folder, gateway, "canary", {1: 9500, 2: 500}, arguments.requests)
            five = {1: 5000, 2: 2500, 3: 1500, 4: 900, 5: 100}
            shares(campaign, folder, gateway, "five variants", five, arguments.requests)
            shares(campaign, folder, gateway, "smallest", {1: 9999, 2: 1}, arguments.requests * 2)
            shares(campaign, folder, gateway, "zero", {1: 10_000, 2: 0}, arguments.requests)
            last = ramp(campaign, folder, gateway, keys)
            over = {door: asyncio.run(ask(gateway, 0, keys, door=door)) for door in ("http", "grpc")}
            for door, answers in over.items():
                moved = sum(a != b for a, b in zip(last, answers, strict=True))
                campaign.equal(f"keys that moved when asked again over {door}, two processes", moved, 0)
        with serve(folder, state, "--processes", "2") as gateway:
            again = asyncio.run(ask(gateway, 0, keys))
            campaign.equal("keys that moved over a restart", sum(a != b for a, b in zip(last, again, strict=True)), 0)
        problems = [line for line in gateway.log if re.search("Traceback", line)]
        campaign.equal("tracebacks in the log", len(problems), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=20_000)
    run("split", check, parser)
