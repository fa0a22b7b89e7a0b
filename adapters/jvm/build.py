"""Compiles the worker's Java sources, once for each version of them and of Spark.

`python -m adapters.jvm.build FOLDER` fills a folder ahead of time, for an image without a compiler: name it in
TURNOUT_JVM_CLASSES. It must not leave half a build where another process would find it.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TextIO

from adapters.interface import LoadFailed
from adapters.jvm.toolchain import JAVA_MIN, Java, Spark, compiler_of, find_java, find_spark, run_program

SOURCES: Final = Path(__file__).parent / "java"
PREBUILT: Final = "TURNOUT_JVM_CLASSES"
_WORKER_ROOTS: Final = ("spi", "worker")
_SPARK_ROOTS: Final = ("spark",)
_COMPILE_WITHIN_S: Final = 300.0
_LOCK_POLL_S: Final = 0.05
_MAX_REASON: Final = 2000


async def worker_classes(cache: Path, java: Java, environment: Mapping[str, str]) -> Path:
    """Return the folder of the worker's classes, compiled first where needed. Raises LoadFailed."""
    name = f"worker-{_digest(_WORKER_ROOTS)}"
    return await _classes(name, _WORKER_ROOTS, "", cache, java, environment)


async def spark_classes(cache: Path, java: Java, spark: Spark, environment: Mapping[str, str]) -> Path:
    """Return the folder of the classes that need Spark, compiled against these jars. Raises LoadFailed."""
    worker = await worker_classes(cache, java, environment)
    name = f"spark-{spark.version}-{_digest((*_WORKER_ROOTS, *_SPARK_ROOTS))}"
    return await _classes(name, _SPARK_ROOTS, f"{worker}:{spark.jars}/*", cache, java, environment)


async def _classes(
    name: str, roots: Iterable[str], class_path: str, cache: Path, java: Java, environment: Mapping[str, str]
) -> Path:
    if environment.get(PREBUILT):
        prebuilt = Path(environment[PREBUILT]) / name
        if prebuilt.is_dir():
            return prebuilt
    target = cache / name
    if target.is_dir():
        return target
    async with _locked(cache, name):
        if not target.is_dir():
            await _compile(roots, class_path, target, compiler_of(java))
    return target


async def _compile(roots: Iterable[str], class_path: str, target: Path, javac: Path) -> None:
    """Compile into a folder beside `target` and rename it: a reader sees all or nothing."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as made:
        files = [str(file) for root in roots for file in sorted((SOURCES / root).rglob("*.java"))]
        path = ["-cp", class_path] if class_path else []
        options = ["--release", str(JAVA_MIN), "-nowarn", "-d", f"{made}/classes"]
        try:
            status, said = await run_program(_COMPILE_WITHIN_S, str(javac), *options, *path, *files)
        except TimeoutError as error:
            raise LoadFailed(f"javac did not end within {_COMPILE_WITHIN_S:.0f} s") from error
        if status != 0:
            raise LoadFailed(f"javac refuses the worker's sources: {' '.join(said.split())[:_MAX_REASON]}")
        _publish(Path(made) / "classes", roots, target)


def _publish(classes: Path, roots: Iterable[str], target: Path) -> None:
    for root in roots:
        for file in (SOURCES / root).glob("*.properties"):
            shutil.copy(file, classes)
    classes.rename(target)


@asynccontextmanager
async def _locked(cache: Path, name: str) -> AsyncIterator[None]:
    """Hold an exclusive lock on a file in `cache`; several versions start at once, and one compiles."""
    until = asyncio.get_running_loop().time() + _COMPILE_WITHIN_S
    with _lock_file(cache, name) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if asyncio.get_running_loop().time() > until:
                    raise LoadFailed(f"another process compiles {name} for over {_COMPILE_WITHIN_S:.0f} s") from error
                await asyncio.sleep(_LOCK_POLL_S)
        yield


def _lock_file(cache: Path, name: str) -> TextIO:
    cache.mkdir(parents=True, exist_ok=True)
    return (cache / f"{name}.lock").open("w")


def _digest(roots: Iterable[str]) -> str:
    """Return a digest of the sources under these roots, names and contents."""
    digest = hashlib.sha256()
    for root in roots:
        for file in sorted(path for path in (SOURCES / root).rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(SOURCES)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


async def _prebuild(cache: Path) -> None:
    java = await find_java(os.environ)
    sys.stdout.write(f"{await worker_classes(cache, java, {})}\n")
    try:
        spark = find_spark("auto", os.environ)
    except LoadFailed as error:
        sys.stderr.write(f"without the Spark part: {error}\n")
        return
    sys.stdout.write(f"{await spark_classes(cache, java, spark, {})}\n")


if __name__ == "__main__":
    asyncio.run(_prebuild(Path(sys.argv[1]).resolve()))
