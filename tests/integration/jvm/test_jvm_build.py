"""Finding a Java and compiling the worker with it."""

import asyncio
import os
import shutil

import pytest

from adapters.interface import LoadFailed
from adapters.jvm import build
from adapters.jvm.command import worker_command
from adapters.jvm.toolchain import Java, find_java
from tests import jvm_builds
from tests.integration.jvm.jvm_worker import source_of

FAKE = """#!/bin/sh
echo "    java.home = {home}" >&2
echo "    java.specification.version = {version}" >&2
"""


def fake_java(home, version, *, javac=True):
    """Lay out a runtime that only says its version; return its home."""
    (home / "bin").mkdir(parents=True)
    for name in ("java", "javac") if javac else ("java",):
        (home / "bin" / name).write_text(FAKE.format(home=home, version=version))
        (home / "bin" / name).chmod(0o755)
    return home


async def test_java_home_comes_before_the_path(tmp_path):
    """JAVA_HOME is looked at first, then PATH; what is too old is passed over, a compiler is preferred."""
    old = fake_java(tmp_path / "old", "1.8")
    new = fake_java(tmp_path / "new", "21")
    bare = fake_java(tmp_path / "bare", "25", javac=False)
    found = await find_java({"JAVA_HOME": str(new), "PATH": str(old / "bin")})
    assert (found.home, found.version) == (new, 21)
    assert (await find_java({"JAVA_HOME": str(old), "PATH": str(new / "bin")})).home == new
    assert (await find_java({"JAVA_HOME": str(bare), "PATH": str(new / "bin")})).home == new
    assert (await find_java({"JAVA_HOME": str(bare), "PATH": ""})).javac is None


async def test_unusable_java_is_named(tmp_path):
    """What was found instead is said in one sentence."""
    old = fake_java(tmp_path / "old", "11")
    with pytest.raises(LoadFailed) as refused:
        await find_java({"PATH": str(old / "bin")})
    assert str(refused.value) == f"Java 11 found at {old}; JVM models need a JDK 17 or newer"
    with pytest.raises(LoadFailed) as refused:
        await find_java({"PATH": str(tmp_path)})
    assert str(refused.value) == "no Java found in JAVA_HOME or PATH; JVM models need a JDK 17 or newer"


async def test_missing_compiler_is_named(tmp_path):
    """A runtime without a compiler is refused where something must be compiled."""
    bare = await find_java({"JAVA_HOME": str(fake_java(tmp_path / "bare", "17", javac=False)), "PATH": ""})
    with pytest.raises(LoadFailed) as refused:
        await build.worker_classes(tmp_path / "classes", bare, {})
    assert str(refused.value).endswith("comes without javac; JVM models need a JDK 17 or newer")


async def test_sources_are_compiled_once(tmp_path, monkeypatch):
    """Several versions that start at once compile the worker once, and leave nothing half made."""
    compiled = []
    original = build._compile

    async def counted(*arguments):
        compiled.append(arguments)
        await original(*arguments)

    monkeypatch.setattr(build, "_compile", counted)
    java = await find_java(os.environ)
    made = await asyncio.gather(*(build.worker_classes(tmp_path, java, {}) for _ in range(4)))
    assert len(compiled) == 1
    assert len(set(made)) == 1
    assert (made[0] / "dev" / "turnout" / "worker" / "Main.class").exists()
    assert {path.name for path in tmp_path.iterdir()} == {made[0].name, f"{made[0].name}.lock"}


async def test_prebuilt_classes_need_no_compiler(tmp_path):
    """Classes that an image brings along are used as they are."""
    made = jvm_builds.spi_classes()
    shutil.copytree(made, tmp_path / "prebuilt" / made.name)
    bare = Java(tmp_path, 17, tmp_path / "java", None)
    found = await build.worker_classes(tmp_path / "c", bare, {build.PREBUILT: str(tmp_path / "prebuilt")})
    assert found == tmp_path / "prebuilt" / made.name
    assert not (tmp_path / "c").exists()


async def test_broken_source_is_said(tmp_path, monkeypatch):
    """What the compiler says reaches the operator."""
    broken = tmp_path / "java" / "worker"
    broken.mkdir(parents=True)
    (broken / "Broken.java").write_text("class Broken {")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "java")
    with pytest.raises(LoadFailed, match=r"javac refuses the worker's sources: \S*Broken\.java"):
        await build.worker_classes(tmp_path / "classes", await find_java(os.environ), {})


async def test_command_has_the_flags_of_its_options(tmp_path, java_jars, scratch):
    """Heap, CPUs and further flags of the version reach the command line; the user's flags come last."""
    options = {"heap": "64m", "cpus": 3, "flags": ["-Dcolour=green"]}
    command = await worker_command(source_of(tmp_path, java_jars, "echo.jar", options, scratch=scratch))
    flags = command.argv[1 : command.argv.index("-cp")]
    assert {"-Xmx64m", "-XX:ActiveProcessorCount=3", "-XX:+ExitOnOutOfMemoryError"} <= set(flags)
    assert flags[-1] == "-Dcolour=green"
    arguments = command.argv[command.argv.index("dev.turnout.worker.Main") + 1 :]
    assert arguments[arguments.index("--threads") + 1] == "3"
    assert arguments[arguments.index("--jars") + 1] == str(java_jars / "echo.jar")
