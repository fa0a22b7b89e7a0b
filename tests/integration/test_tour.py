"""`make run`: the tour as a whole, with real training, a real gateway and real flights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.launch import descendants
from tests.processes import is_alive
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
FLIGHTS = 6000
# What is started in the background of a script ignores SIGINT, and so do all processes below it.
CTRL_C_WORKS = ("env", "--default-signal=INT")

pytestmark = pytest.mark.timeout(400)


class Tour:
    """A running tour."""

    def __init__(self, folder, *flags, **environment):
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*CTRL_C_WORKS, sys.executable, "-m", "models.flight_delay.tour", "--flights", str(FLIGHTS), *flags],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.seen = {}

    def text(self):
        """Return what it printed."""
        return self.output.read_text()

    def said(self, words, within_s):
        """Wait until it has printed these words, remembering every process below it."""

        def look():
            self.seen |= descendants(self.process.pid)
            return words in self.text() or self.process.poll() is not None

        eventually(look, within_s, words)
        assert words in self.text(), self.text()

    def left(self):
        """Return the processes that it started and that still live."""
        return [command for pid, command in self.seen.items() if is_alive(pid)]


@pytest.fixture
def tour(tmp_path):
    """Return a function that starts the tour; it is taken down after the test."""
    started = []

    def start(*flags, **environment):
        started.append(Tour(tmp_path, *flags, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(60)


@pytest.fixture
def path_without_java(tmp_path):
    """Return a PATH with everything but Java's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for tool in Path(place).glob("*") if Path(place).is_dir() else ():
            if tool.name not in {"java", "javac"}:
                (folder / tool.name).unlink(missing_ok=True)
                (folder / tool.name).symlink_to(tool)
    return str(folder)


def test_tour_serves_three_runtimes_and_compares_them(tour):
    """With `--once` the tour ends with status 0, every version compared, both counts equal, no process left."""
    running = tour("--once")
    running.said("the same as JSON", 300)
    assert running.process.wait(60) == 0, running.text()
    assert "turnout ready http=" in running.text()
    result = json.loads((ROOT / "build" / "flight_delay" / "summary.json").read_text())
    assert result["problems"] == []
    assert result["flights"] == FLIGHTS
    assert [version["role"] for version in result["versions"]] == ["champion", "canary", "shadow"]
    assert all(version["auc_of_same_flights"] > 0.8 for version in result["versions"])
    assert all(share["share"] >= 0.4 for share in result["protocols"].values())
    assert all(count["equal"] for count in result["metrics"])
    shadow = result["versions"][2]["agreement_with_champion"]
    assert shadow["equal"] >= 0.99 * shadow["flights"] > 0
    eventually(lambda: not running.left(), 10, "all processes end")


def test_tour_without_java_says_so_and_ends_well_on_ctrl_c(tour, path_without_java):
    """Without Java it serves the other two; it stays up until Ctrl-C, ends with status 0 and leaves nothing."""
    running = tour(PATH=path_without_java, JAVA_HOME="")
    running.said("Ctrl-C ends it", 300)
    assert "JVM models need a JDK 17 or newer" in running.text()
    assert len(running.seen) >= 3
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0, running.text()
    eventually(lambda: not running.left(), 10, "all processes end")


def test_tour_stopped_early_leaves_nothing(tour, path_without_java):
    """A Ctrl-C while flights are under way ends the gateway too."""
    running = tour("--once", PATH=path_without_java, JAVA_HOME="")
    running.said("turnout ready", 300)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130
    eventually(lambda: not running.left(), 10, "all processes end")
