"""Finds what a JVM worker runs on: a Java of version 17 or newer, its compiler, and Spark's jars.

It must not install anything, nor pick silently a runtime that cannot work.
"""

import asyncio
import contextlib
import importlib.util
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from adapters.interface import LoadFailed

JAVA_MIN: Final = 17
_SETTINGS_WITHIN_S: Final = 30.0
_NEEDED: Final = f"JVM models need a JDK {JAVA_MIN} or newer"


class Java(msgspec.Struct, frozen=True):
    """A Java runtime; `javac` is None where it comes without the compiler."""

    home: Path
    version: int
    java: Path
    javac: Path | None


class Spark(msgspec.Struct, frozen=True):
    """Spark's jars."""

    jars: Path
    version: str


async def find_java(environment: Mapping[str, str]) -> Java:
    """Return the first usable Java of JAVA_HOME and PATH, one with a compiler before one without.

    Raises LoadFailed with one sentence on what was found instead.
    """
    usable: list[Java] = []
    refused: list[str] = []
    for program in _candidates(environment):
        found = await _inspect(program)
        if isinstance(found, str):
            refused.append(found)
        elif found.version < JAVA_MIN:
            refused.append(f"Java {found.version} found at {found.home}")
        else:
            usable.append(found)
    if not usable:
        raise LoadFailed(f"{'; '.join(refused) or 'no Java found in JAVA_HOME or PATH'}; {_NEEDED}")
    return next((java for java in usable if java.javac is not None), usable[0])


def compiler_of(java: Java) -> Path:
    """Return the compiler. Raises LoadFailed for a runtime without one."""
    if java.javac is None:
        raise LoadFailed(f"Java {java.version} found at {java.home} comes without javac; {_NEEDED}")
    return java.javac


def find_spark(home: str, environment: Mapping[str, str]) -> Spark:
    """Return Spark's jars: under `home`, or for `auto` those of pyspark here, else of SPARK_HOME.

    Raises LoadFailed where there are none, or they are of a Spark that is not 4.x.
    """
    places = _spark_places(environment) if home == "auto" else [Path(home)]
    for place in places:
        jars = place / "jars" if (place / "jars").is_dir() else place
        cores = sorted(jars.glob("spark-core_*.jar"))
        if cores:
            version = cores[-1].stem.rpartition("-")[2]
            if not version.startswith("4."):
                raise LoadFailed(f"Spark {version} found at {place}; Spark models need Spark 4")
            return Spark(jars, version)
    if home == "auto":
        raise LoadFailed("no Spark found: install pyspark 4 in this environment, or set SPARK_HOME")
    raise LoadFailed(f"options.spark_home: no Spark jars in {home}")


def _spark_places(environment: Mapping[str, str]) -> list[Path]:
    package = importlib.util.find_spec("pyspark")
    places = [Path(package.origin).parent] if package is not None and package.origin is not None else []
    if environment.get("SPARK_HOME"):
        places.append(Path(environment["SPARK_HOME"]))
    return places


def _candidates(environment: Mapping[str, str]) -> list[Path]:
    """Return the `java` programs to try, each once."""
    found = []
    if environment.get("JAVA_HOME"):
        found.append(Path(environment["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java", path=environment.get("PATH", ""))
    if on_path is not None:
        found.append(Path(on_path))
    return list(dict.fromkeys(program.resolve() for program in found if program.exists()))


async def _inspect(program: Path) -> Java | str:
    """Ask a `java` what it is; the answer is a sentence where it does not say."""
    try:
        _, text = await run_program(_SETTINGS_WITHIN_S, str(program), "-XshowSettings:properties", "-version")
    except OSError as error:
        return f"{program} does not start: {error.strerror}"
    except TimeoutError:
        return f"{program} does not say its version within {_SETTINGS_WITHIN_S:.0f} s"
    version = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", text)
    home = re.search(r"java\.home = (.+)", text)
    if version is None or home is None:
        return f"{program} does not say its version"
    javac = Path(home[1].strip()) / "bin" / "javac"
    return Java(Path(home[1].strip()), int(version[1]), program, javac if javac.exists() else None)


async def run_program(within_s: float, *argv: str) -> tuple[int, str]:
    """Run a program to its end; return its status and what it printed. Raises OSError and TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), within_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")
