"""How the parent starts a JVM worker: flags, class path and arguments.

It must not start the worker itself, nor know what happens on its socket.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from adapters.interface import ModelSource
from adapters.jvm.build import spark_classes, worker_classes
from adapters.jvm.options import model_jars, read_options
from adapters.jvm.toolchain import Java, find_java, find_spark
from adapters.worker.command import WorkerCommand
from turnout.core.manifest import JvmKind, JvmOptions

MAIN_CLASS: Final = "dev.turnout.worker.Main"
SPI_START_TIMEOUT_S: Final = 60.0
# A Spark session takes some 10 s on two cores and more than twice that on one that is busy.
SPARK_START_TIMEOUT_S: Final = 240.0
# What Spark 4's own launcher opens to itself, the parts for Kerberos and netty's TLS left out.
_OPENED: Final = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)
# The second compiler works four times later than by default: a start costs a quarter less CPU, and what serves is
# called often enough to be compiled all the same.
_LATE_C2: Final = (
    "-XX:Tier4InvocationThreshold=20000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=40000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
_UNSAFE_WARNS_FROM: Final = 24


async def worker_command(source: ModelSource) -> WorkerCommand:
    """Return how the version's worker is started. Raises LoadFailed, for example without a usable JDK."""
    kind, options = read_options(source)
    jars = model_jars(source, kind, options)
    environment = dict(os.environ)
    java = await find_java(environment)
    cache = source.scratch / "jvm-classes"
    worker = await worker_classes(cache, java, environment)
    if kind is JvmKind.SPI:
        argv = (str(java.java), *_flags(options), *options.flags, "-cp", str(worker), MAIN_CLASS)
        return WorkerCommand((*argv, *_arguments(source, kind, options, jars)), _environment(), SPI_START_TIMEOUT_S)
    spark = await asyncio.to_thread(find_spark, options.spark_home, environment)
    classes = await spark_classes(cache, java, spark, environment)
    # Spark looks for a pipeline's stages on its own class path, so the version's jars lie there as well.
    path = ":".join(map(str, (classes, worker, *jars, f"{spark.jars}/*")))
    flags = (*_flags(options), *_spark_flags(java, classes), *options.flags)
    argv = (str(java.java), *flags, "-cp", path, MAIN_CLASS)
    return WorkerCommand((*argv, *_arguments(source, kind, options, [])), _environment(), SPARK_START_TIMEOUT_S)


def _flags(options: JvmOptions) -> tuple[str, ...]:
    """Return flags for a small process that answers quickly: little memory, few threads, no half-dead state."""
    return (
        f"-Xmx{options.heap}",
        "-Xss4m",  # folded plans and trees are walked by recursion
        "-XX:+UseSerialGC",
        f"-XX:ActiveProcessorCount={options.cpus}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",  # would write to /tmp, which may be read-only
        "-Xshare:auto",
        "-Dfile.encoding=UTF-8",
    )


def _spark_flags(java: Java, classes: Path) -> tuple[str, ...]:
    flags = [*_LATE_C2, *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED)]
    if java.version >= _UNSAFE_WARNS_FROM:
        flags += ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
    flags.append(f"-Dlog4j2.configurationFile={classes / 'turnout-log4j2.properties'}")
    flags.append("-Dio.netty.tryReflectionSetAccessible=true")
    return tuple(flags)


def _arguments(source: ModelSource, kind: JvmKind, options: JvmOptions, jars: list[Path]) -> tuple[str, ...]:
    arguments = ["--kind", str(kind), "--scratch", str(source.scratch / "jvm-run"), "--threads", str(options.cpus)]
    arguments += ["--trusted", "true" if source.trusted else "false"]
    if jars:
        arguments += ["--jars", ":".join(map(str, jars))]
    return tuple(arguments)


def _environment() -> Mapping[str, str]:
    return {
        "LC_ALL": "C.UTF-8",  # names of files are read in it
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_USER": "turnout",
    }
