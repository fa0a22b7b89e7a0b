"""What every long check shares: figures against bars, the facts of the run, JSON in `bench/results/`, an exit code.

A check never lowers its own bar, and a figure that was not measured fails.
"""

import argparse
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "bench" / "results"
_SHOWN_CHARS: Final = 1000


class Figure(msgspec.Struct, frozen=True):
    """One measured value and the bar that it has to reach, in words."""

    name: str
    value: Any
    bar: str
    reached: bool


class Facts(msgspec.Struct, frozen=True):
    """Where and on what a check ran."""

    commit: str
    dirty: bool
    seed: int
    started: str
    python: str
    platform: str
    cpu: str
    cores: int
    memory_gib: float


class Campaign:
    """One long check: collects figures, prints each as it comes, and tells the whole at the end."""

    def __init__(self, name: str, seed: int, results: Path = RESULTS) -> None:
        self.name = name
        self._results = results
        self.seed = seed
        self.random = random.Random(seed)
        self.figures: list[Figure] = []
        self.extra: dict[str, Any] = {}
        self._facts = facts(seed)
        self._started_s = time.monotonic()
        print(f"campaign {name}: commit {self._facts.commit[:12]}{'+' if self._facts.dirty else ''} seed {seed}")
        print(
            f"  {self._facts.cpu}, {self._facts.cores} cores, {self._facts.memory_gib} GiB, Python {self._facts.python}"
        )

    def at_least(self, name: str, value: float, bar: float) -> None:
        """Record a figure that has to reach `bar`."""
        self._add(Figure(name, value, f">= {bar:g}", not math.isnan(value) and value >= bar))

    def at_most(self, name: str, value: float, bar: float) -> None:
        """Record a figure that must not exceed `bar`."""
        self._add(Figure(name, value, f"<= {bar:g}", not math.isnan(value) and value <= bar))

    def equal(self, name: str, value: object, wanted: object) -> None:
        """Record a figure that must be exactly `wanted`."""
        self._add(Figure(name, value, f"== {wanted}", value == wanted))

    def between(self, name: str, value: float, low: float, high: float) -> None:
        """Record a figure that has to lie in a closed interval."""
        self._add(Figure(name, value, f"in [{low:g}, {high:g}]", low <= value <= high))

    def note(self, name: str, value: object) -> None:
        """Keep a value that has no bar."""
        self.extra[name] = value
        shown = str(value)
        print(f"        {name} = {shown if len(shown) <= _SHOWN_CHARS else '(in the JSON)'}")

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)
        shown = f"{figure.value:.6g}" if isinstance(figure.value, float) else str(figure.value)
        print(f"  {'ok  ' if figure.reached else 'FAIL'}  {figure.name} = {shown}   (bar {figure.bar})", flush=True)

    def finish(self) -> int:
        """Write the JSON and return the exit code: 0 only when there are figures and all reached their bars."""
        reached = bool(self.figures) and all(figure.reached for figure in self.figures)
        document = {
            "campaign": self.name,
            "reached": reached,
            "facts": self._facts,
            "seconds": round(time.monotonic() - self._started_s, 1),
            "figures": self.figures,
            "notes": self.extra,
        }
        self._results.mkdir(parents=True, exist_ok=True)
        path = self._results / f"{self.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        print(f"campaign {self.name}: {'reached' if reached else 'NOT REACHED'}; {path.relative_to(ROOT)}")
        return 0 if reached else 1


def run(
    name: str,
    check: Callable[[Campaign, argparse.Namespace], None],
    parser: argparse.ArgumentParser | None = None,
    results: Path = RESULTS,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run one check as a script and exit with its code; `--seed` repeats a run.

    The JSON goes to `results`; `after` does what is made of it.
    """
    parser = parser or argparse.ArgumentParser(description=check.__doc__)
    parser.add_argument("--seed", type=int, default=20131107)
    arguments = parser.parse_args()
    campaign = Campaign(name, arguments.seed, results)
    try:
        check(campaign, arguments)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # noqa: BLE001  a check that broke is a check that failed, and its figures are kept
        campaign.equal(f"unbroken: {type(error).__name__}: {error}", False, True)
    code = campaign.finish()
    after()
    sys.exit(code)


def facts(seed: int) -> Facts:
    """Gather the commit and the machine's facts."""
    return Facts(
        commit=_git("rev-parse", "HEAD"),
        dirty=bool(_git("status", "--porcelain")),
        seed=seed,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() or ("" if arguments[0] == "status" else "unknown")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def binomial_interval(successes_expected: float, trials: int, confidence: float = 0.999) -> tuple[float, float]:
    """Return the central interval of a binomial share with probability `successes_expected`, by exact quantiles."""
    from scipy.stats import binom  # noqa: PLC0415  only the checks that need it pay for it

    tail = (1 - confidence) / 2
    low, high = binom.ppf(tail, trials, successes_expected), binom.ppf(1 - tail, trials, successes_expected)
    return float(low) / trials, float(high) / trials
