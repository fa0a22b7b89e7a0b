"""Plants one-line faults, one at a time, in a copy of the project and demands that the suite turns red each time.

The faults stand in `sabotage.toml`. The project itself is never changed. A fault whose line is not found fails the
run: a check that no longer checks is worse than none.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from bench.campaign.harness import ROOT, Campaign, run

TABLE: Final = Path(__file__).with_name("sabotage.toml")
COPIED: Final = (
    "turnout",
    "gateway",
    "adapters",
    "tests",
    "proto",
    "bench",
    "docs",
    "models",
    "pyproject.toml",
    "README.md",
)
AT_LEAST: Final = 20


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A planted fault: text found once in a file, what replaces it, and the tests that must see it."""

    name: str
    file: str
    find: str
    replace: str
    tests: list[str]


def faults() -> list[Fault]:
    """Return the table of faults."""
    return msgspec.convert(tomllib.loads(TABLE.read_text())["fault"], list[Fault])


def copy(target: Path) -> None:
    """Copy what the tests need into `target`."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        elif source.exists():
            shutil.copy2(source, target / name)


def suite_is_red(tree: Path, tests: list[str], *, show: bool = False) -> bool:
    """Run the named tests in `tree`; red means that a test failed, not that none ran. `show`: print the failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin", "HOME": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests {tests} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode == 1 and show:
        print(done.stdout[-4000:])
    return done.returncode == 1


def planted(tree: Path, fault: Fault) -> bool:
    """Plant a fault, run its tests, take it out again; return whether the suite turned red."""
    path = tree / fault.file
    whole = path.read_text()
    if whole.count(fault.find) != 1:
        raise RuntimeError(f"{fault.name}: the line stands {whole.count(fault.find)} times in {fault.file}, not once")
    path.write_text(whole.replace(fault.find, fault.replace))
    try:
        return suite_is_red(tree, fault.tests)
    finally:
        path.write_text(whole)


def check(campaign: Campaign, _: object) -> None:
    """Run the tests of all faults unharmed (green), then once for each fault (red)."""
    table = faults()
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        copy(tree)
        every = sorted({test for fault in table for test in fault.tests})
        campaign.equal("the tests are green without a fault", suite_is_red(tree, every, show=True), False)
        for fault in table:
            started = time.monotonic()
            red = planted(tree, fault)
            campaign.equal(f"red with: {fault.name} ({time.monotonic() - started:.1f} s)", red, True)
    campaign.at_least("faults planted", len(table), AT_LEAST)


if __name__ == "__main__":
    run("sabotage", check)
