"""10,000 drawn conversations with the HTTP door, by the prediction lane and by plain ASGI, compared to the byte."""

import argparse
import asyncio
import logging
import re
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from bench.campaign.harness import Campaign, run
from tests.http_conversations import conversations, gateway, hold

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Hold each conversation both ways."""
    logging.disable(logging.CRITICAL)
    statuses: Counter[str] = Counter()
    differing: list[list[bytes]] = []
    held = 0

    @seed(campaign.seed)
    @settings(
        max_examples=arguments.conversations, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(conversations(), st.booleans())
    def compare(pieces: list[bytes], at_once: bool) -> None:  # noqa: FBT001  hypothesis hands it over
        nonlocal held
        plain = asyncio.run(hold(pieces, gateway(at_once=False), lane=False))
        held += 1
        statuses.update(found.decode() for found in _STATUS.findall(plain[0]))
        if asyncio.run(hold(pieces, gateway(at_once=at_once), lane=True)) != plain:
            differing.append(pieces)

    compare()
    campaign.note("answers by status", dict(sorted(statuses.items())))
    campaign.at_least("conversations held", held, arguments.conversations)
    campaign.at_least("answers with status 200", statuses["200"], arguments.conversations // 10)
    campaign.equal("conversations that differ", len(differing), 0)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    run("lane", check, parser)


if __name__ == "__main__":
    main()
