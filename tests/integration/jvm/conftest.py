"""Jars and pipelines that the JVM tests serve."""

from pathlib import Path

import pytest

from tests import jvm_builds

HERE = Path(__file__).parent


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
def pipelines() -> Path:
    """A folder of saved Spark pipelines, each with `model/` and `reference.json`."""
    return jvm_builds.spark_pipelines(HERE / "train_pipelines.py")
