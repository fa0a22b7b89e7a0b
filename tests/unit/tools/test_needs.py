"""The check of the machine that runs before the first test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

SCRIPT = Path(needs.__file__)


def write_program(folder, name, says):
    """Write a program that prints something on stderr."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return the only folder of programs on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for program in ("curl", "git", "valgrind", "wrk", "h2load", "prometheus", "promtool"):
        write_program(tmp_path, program, "")
    write_program(tmp_path, "javac", "javac 17.0.1")
    return tmp_path


def test_nothing_is_missing_where_everything_is(machine):
    """With every program in place there is nothing to install."""
    assert needs.missing() == []


@pytest.mark.parametrize(("program", "package"), [("promtool", "prometheus"), ("javac", "openjdk-17-jdk-headless")])
def test_a_missing_program_names_its_package(machine, program, package):
    """A program that is not there asks for the Debian package that has it."""
    (machine / program).unlink()
    assert needs.missing() == [package]


def test_an_old_jdk_is_none(machine):
    """A compiler of Java 11 does not do."""
    write_program(machine, "javac", "javac 11.0.2")
    assert needs.missing() == ["openjdk-17-jdk-headless"]


def test_without_root_it_says_what_to_type(machine):
    """Where nothing can be installed the check fails before the first test, with the line to type."""
    (machine / "prometheus").unlink()
    code = "import os, runpy, sys; os.geteuid = lambda: 1000; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT)],
        env={**os.environ, "PATH": str(machine)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends prometheus" in done.stderr
