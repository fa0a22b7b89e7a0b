"""What JVM tests serve: jars from Java and Scala, and saved Spark pipelines; made once, kept in build/ by content.

Must not need anything but the JDK and what pyspark brings.
"""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from adapters.jvm.build import worker_classes
from adapters.jvm.toolchain import Java, find_java, find_spark

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = ROOT / "build" / "tests" / "jvm"
SERVICE: Final = "META-INF/services/dev.turnout.spi.Model"


@cache
def java() -> Java:
    """Return the JDK of this machine."""
    return _finished(find_java(os.environ))


@cache
def spi_classes() -> Path:
    """Return the folder of the worker's classes, which hold the SPI."""
    return _finished(worker_classes(CACHE / "jvm-classes", java(), os.environ))


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end, on a loop of its own: a fixture may be asked for while a test's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def java_jars(sources: Iterable[Path], jars: Mapping[str, Iterable[str]], *, spark: bool = False) -> Path:
    """Return a folder with jars of all classes of `sources`, each naming its models; they may use Spark's if asked."""
    files = list(sources)
    path = f"{find_spark('auto', os.environ).jars}/*" if spark else str(spi_classes())
    checks = [] if spark else ["-Xlint:all", "-Werror"]

    def make(making: Path) -> None:
        classes = making / "classes"
        javac = [str(java().javac), *checks, "-cp", path, "-d", str(classes)]
        subprocess.run([*javac, *map(str, files)], check=True)
        for name, models in jars.items():
            _write_jar(making / name, classes, models)

    return _kept("jars", make, files, salt=f"{spi_classes().name}{jars}")


def scala_jar(source: Path, model: str) -> Path:
    """Return a folder with model.jar, compiled by the compiler among Spark's jars, and scala-library.jar."""
    jars = find_spark("auto", os.environ).jars
    library = next(jars.glob("scala-library-*.jar"))

    def make(making: Path) -> None:
        classes = making / "classes"
        classes.mkdir()
        compiler = [jar for part in ("scala-*", "jline-*", "jna-*") for jar in sorted(jars.glob(f"{part}.jar"))]
        tool = [str(java().java), "-Xss8m", "-XX:+UseSerialGC", "-cp", ":".join(map(str, compiler))]
        path = f"{spi_classes()}:{library}"
        scalac = [*tool, "scala.tools.nsc.Main", "-nowarn", "-d", str(classes), "-cp", path]
        subprocess.run([*scalac, str(source)], check=True)
        _write_jar(making / "model.jar", classes, [model])
        shutil.copy(library, making / "scala-library.jar")

    return _kept("scala", make, [source], salt=f"{spi_classes().name}{library.name}")


def spark_pipelines(script: Path) -> Path:
    """Return the folder that a training script fills; it is run as `python SCRIPT FOLDER`."""

    def make(making: Path) -> None:
        environment = {**os.environ, "JAVA_HOME": str(java().home), "SPARK_LOCAL_IP": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), str(making)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    return _kept("pipelines", make, [script], salt=find_spark("auto", os.environ).version)


def _kept(kind: str, make: Callable[[Path], None], sources: Iterable[Path], *, salt: str) -> Path:
    """Return a folder for these sources; `make` fills it unless an earlier run has."""
    digest = hashlib.sha256(salt.encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = CACHE / f"{kind}-{digest.hexdigest()[:16]}"
    if not folder.exists():
        making = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        make(making)
        try:
            making.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(making)  # another process was quicker
    return folder


def _write_jar(jar: Path, classes: Path, models: Iterable[str]) -> None:
    with zipfile.ZipFile(jar, "w") as packed:
        for file in sorted(classes.rglob("*.class")):
            packed.write(file, file.relative_to(classes).as_posix())
        packed.writestr(SERVICE, "".join(f"{model}\n" for model in models))
