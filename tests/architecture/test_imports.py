"""Who may import what."""

import ast
import fnmatch
import importlib
import subprocess
import sys

import pytest

from tests.architecture import sources

ONE_PLACE = {
    "onnxruntime": ("adapters/onnx_*.py",),
    "sklearn": ("adapters/scikit*.py",),
    "skops": ("adapters/scikit*.py",),
    "joblib": ("adapters/scikit*.py",),
    "grpc": ("gateway/doors/grpc*.py", "turnout/core/wire/*.py"),
    "grpc_health": ("gateway/doors/grpc*.py",),
    "grpc_reflection": ("gateway/doors/grpc*.py",),
    "google": ("gateway/doors/grpc*.py", "turnout/core/wire/*.py"),
    "sqlite3": ("*/store.py",),
    "sqlalchemy": ("*/store.py",),
    "pyspark": (),
    "pandas": (),
}


def test_import_contracts_hold():
    """The arrows of ARCHITECTURE.md, written as import-linter contracts in pyproject.toml, hold."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=sources.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("library", sorted(ONE_PLACE))
def test_library_is_imported_in_its_place_only(library):
    """Each engine, grpc and SQL is imported in the files named for it and nowhere else."""
    places = ONE_PLACE[library]
    strays = [
        sources.named(path)
        for path in sources.files(*sources.PACKAGES)
        if library in sources.imported_roots(sources.parsed(path))
        and not any(fnmatch.fnmatch(sources.named(path), place) for place in places)
    ]
    assert strays == []


@pytest.mark.parametrize(("door", "other"), [("http", "grpc"), ("grpc", "http")])
def test_doors_know_nothing_of_each_other(door, other):
    """Neither door imports a module of the other one; what they share lies beside them."""
    strays = [
        f"{sources.named(path)}: {node.module}"
        for path in sources.files("gateway")
        if path.parent.name == "doors" and path.name.startswith(door)
        for node in ast.walk(sources.parsed(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"gateway.doors.{other}")
    ]
    assert strays == []


@pytest.mark.parametrize("name", sorted(map(sources.module, sources.files(*sources.PACKAGES))))
def test_module_is_importable(name):
    """Every module of the three packages can be imported."""
    assert importlib.import_module(name).__name__ == name


@pytest.mark.parametrize("name", ["gateway.parent.main", "turnout.cli.main", "turnout.control.main"])
def test_parent_and_control_load_no_engine(name):
    """The parent, the command and control load no engine and no grpc, so that they stay small."""
    code = (
        f"import sys, {name}\n"
        "heavy = {'onnxruntime', 'grpc', 'sklearn', 'skops', 'scipy', 'pandas', 'google.protobuf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=sources.ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
