"""At least 200,000 inputs at each door: no 5xx, no traceback, no restart, no hang, and a healthy server after.

Half of them are right requests with a few bytes changed, the others come from a grammar or are no requests at all; for
gRPC they are messages to its methods and raw HTTP/2. `--seed` repeats a run, `--inputs` sets their number.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from bench.campaign.harness import Campaign, run
from bench.fuzz import throw
from bench.launch import Gateway, serve

ROUND: Final = 10_000


def _gateways(gateway: Gateway) -> list[int]:
    return sorted(pid for pid, command in gateway.descendants().items() if "gateway.main" in command)


async def _door(
    campaign: Campaign,
    gateway: Gateway,
    name: str,
    count: int,
    throw_at: Callable[[Gateway, Random, int], Awaitable[throw.Thrown]],
) -> None:
    total = throw.Thrown()
    sick = 0
    for size in throw.rounds(count, ROUND):
        thrown = await throw_at(gateway, campaign.random, size)
        total.inputs += thrown.inputs
        total.outcomes += thrown.outcomes
        total.wrong += thrown.wrong
        sick += not await throw.is_healthy(gateway)
    campaign.note(f"{name}: outcomes", dict(total.outcomes.most_common()))
    if total.wrong:
        campaign.note(f"{name}: wrong", total.wrong[:10])
    campaign.at_least(f"{name}: inputs", total.inputs, count)
    campaign.equal(f"{name}: server faults, and connections without an end", len(total.wrong), 0)
    campaign.equal(f"{name}: looks at which the server was not healthy", sick, 0)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Throw at both doors of one gateway process."""
    with tempfile.TemporaryDirectory() as temporary:
        throw.write_models(Path(temporary, "models"))
        with serve(Path(temporary, "models"), Path(temporary, "state")) as gateway:
            before = _gateways(gateway)
            for name, share, throw_at in (
                ("http", 1.0, throw.throw_http),
                ("grpc messages", 0.6, throw.throw_messages),
                ("grpc raw http/2", 0.4, throw.throw_http2),
            ):
                asyncio.run(_door(campaign, gateway, name, int(arguments.inputs * share), throw_at))
            campaign.equal("tracebacks in the log", throw.tracebacks(gateway), [])
            campaign.equal("gateway processes replaced", _gateways(gateway), before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    run("fuzz", check, parser)
