"""Every fault on a running gateway: what was done, what callers saw, how long until it was healthy again.

Writes docs/operations/faults.md from what it measured. While a fault lasts, four callers ask the victim's route and
four another one, with a deadline of 2 s. `--only WORD` plays the scenes whose name holds it, and leaves the page alone.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench.campaign.harness import ROOT, Campaign, run
from bench.faults import catalogue, floods, scenes
from bench.launch import Gateway, serve

CONNECTIONS: Final = 10_000
PAGE: Final = ROOT / "docs" / "operations" / "faults.md"
_HEAD: Final = """# Faults: what callers see

Measured by `python -m bench.campaign.faults` ([figures](../../bench/results/faults.json)): one gateway process, four
callers on the victim's route and four on another one, deadline 2 s, no fallback declared. "The call" is the one that
did the harm. Seconds are until the first of eight right answers in a row; 0 means that no answer but the call's failed.

| fault | what was done | the call got | callers of the route saw | callers of another route saw | healthy after |
|---|---|---|---|---|---|
"""


def page(told: list[scenes.Told]) -> str:
    """Return the page for what was measured."""
    rows = [
        f"| {one.name} | {one.did} | {one.bad_call or '-'} | {_words(one.callers)} | {_words(one.others)} "
        f"| {one.healthy_s:.1f} s |\n"
        for one in told
    ]
    return _HEAD + "".join(rows)


def _words(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {outcome}" for outcome, count in outcomes.items()) or "-"


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Play all scenes: on a gateway as it is, and on one of few files with a wall clock that jumps."""
    told: list[scenes.Told] = []

    def play(gateway: Gateway, state: Path, chosen: list[scenes.Scene]) -> None:
        for scene in chosen:
            if arguments.only in scene.name:
                one = asyncio.run(scenes.play(gateway, state, scene))
                told.append(one)
                print(f"        {one.callers} others {one.others} call {one.bad_call} healthy {one.healthy_s:.2f} s")
                campaign.equal(f"{scene.name}: what may not be", scenes.faults_of(scene, one), [])

    with tempfile.TemporaryDirectory() as temporary:
        folder, state, clock = (Path(temporary, name) for name in ("models", "state", "clock"))
        (Path(temporary) / "turnout.yaml").write_text(json.dumps({"limits": floods.LIMITS}))
        scenes.write_models(folder)
        with serve(folder, state, within_s=180) as gateway:
            play(gateway, state, catalogue.scenes(folder))
        for path in folder.iterdir():
            if path.name not in (scenes.OTHER, floods.ROUTE):
                shutil.rmtree(path)
        flags = ("--config", str(Path(temporary, "turnout.yaml")))
        moved = floods.write_clock(clock)
        with serve(folder, state, *flags, prefix=floods.few_files(1024), environment=moved) as gateway:
            play(gateway, state, floods.scenes(clock, CONNECTIONS))
    campaign.note("told", msgspec.to_builtins(told))
    if not arguments.only:
        PAGE.write_text(page(told))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    run("faults", check, parser)
