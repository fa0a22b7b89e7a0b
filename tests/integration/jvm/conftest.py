"""Jars and pipelines that the JVM tests serve, and what the pipelines said in their workers.

Fourteen Spark workers take minutes: they run in a process beside the other tests, and who waits for them comes last.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import jvm_builds
from tests.integration.jvm.spark_plans import TRAINING

HERE = Path(__file__).parent
WAITING = {"pipelines", "runs"}
WITHIN_S = 880


class Recording:
    """The process that trains the pipelines and records what they say; it is begun as soon as tests are known."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        self._out = Path(self._folder.name) / "runs.pickle"
        self._log = self._out.with_name("log.txt")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.jvm.spark_plans", str(self._out)],
                cwd=jvm_builds.ROOT,
                stdin=subprocess.PIPE,  # it ends when this process does, however that comes
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self):
        """Wait for its end; fails with its last words."""
        assert self._process.wait(WITHIN_S) == 0, self._log.read_text()[-8000:]

    def runs(self):
        """Return every pipeline's run."""
        self.ended()
        return pickle.loads(self._out.read_bytes())

    def close(self):
        """End it, with the workers that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._folder.cleanup()


RECORDING = pytest.StashKey[Recording]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Leave the order as it is, but for the tests that wait."""
    items.sort(key=_waits)


def pytest_collection_finish(session):
    """Begin the recording if some test is going to wait for it."""
    if any(map(_waits, session.items)) and not session.config.option.collectonly:
        session.config.stash[RECORDING] = Recording()


def pytest_unconfigure(config):
    """Leave no process behind, however the session ended."""
    recording = config.stash.get(RECORDING, None)
    if recording is not None:
        recording.close()


def _waits(item):
    return not WAITING.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def scratch() -> Path:
    """A scratch folder whose compiled worker is shared by every test."""
    jvm_builds.spi_classes()
    return jvm_builds.CACHE


@pytest.fixture(scope="session")
def java_jars() -> Path:
    """A folder with echo.jar, moody.jar and parrot.jar, and both.jar with two models."""
    names = ("Echo", "Moody", "Parrot")
    jars = {f"{name.lower()}.jar": [f"com.acme.{name}"] for name in names}
    jars["both.jar"] = [f"com.acme.{name}" for name in names[:2]]
    return jvm_builds.java_jars([HERE / "models" / "com" / "acme" / f"{name}.java" for name in names], jars)


@pytest.fixture(scope="session")
def scala_jar() -> Path:
    """A folder with model.jar, written in Scala, and scala-library.jar."""
    return jvm_builds.scala_jar(HERE / "models" / "Logit.scala", "com.acme.Logit")


@pytest.fixture(scope="session")
def stage_jar() -> Path:
    """A jar with a pipeline stage of our own."""
    folder = jvm_builds.java_jars([HERE / "models" / "com" / "acme" / "Drifting.java"], {"stage.jar": []}, spark=True)
    return folder / "stage.jar"


@pytest.fixture(scope="session")
def pipelines(pytestconfig) -> Path:
    """A folder of saved Spark pipelines, each with `model/` and `reference.json`."""
    pytestconfig.stash[RECORDING].ended()
    return jvm_builds.spark_pipelines(TRAINING)


@pytest.fixture(scope="session")
def runs(pytestconfig):
    """What every pipeline said, recorded once."""
    return pytestconfig.stash[RECORDING].runs()
