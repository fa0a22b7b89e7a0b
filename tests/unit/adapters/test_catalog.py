"""The table of adapters."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from adapters import catalog
from adapters.catalog import CatalogError, adapter_for, table, worker_command
from adapters.interface import LoadFailed
from tests.contract.worker_models import source
from turnout.core.manifest import Runtime


def points(monkeypatch, **offered):
    """Pretend that installed packages offer these adapters."""
    found = [EntryPoint(name, value, catalog.ENTRY_POINTS) for name, value in offered.items()]
    monkeypatch.setattr(catalog, "entry_points", lambda group: found if group == catalog.ENTRY_POINTS else [])


@pytest.mark.parametrize("runtime", sorted(set(catalog.ADAPTERS)))
def test_each_runtime_of_the_table_has_its_adapter(runtime):
    """Every line of the table leads to an adapter of that runtime."""
    assert adapter_for(runtime).runtime == runtime


def test_workers_are_those_that_the_manifest_says():
    """The runtimes with a worker command are those that a manifest counts as run in a worker."""
    assert set(catalog.WORKERS) == {str(runtime) for runtime in Runtime if runtime.uses_worker}


def test_other_packages_add_runtimes(monkeypatch):
    """An entry point adds a runtime."""
    points(monkeypatch, mine="adapters.worker.python_adapter:PythonAdapter")
    assert adapter_for("mine").runtime == "python"


def test_two_adapters_for_one_runtime_are_an_error(monkeypatch):
    """A second adapter for a known runtime is refused, naming both."""
    points(monkeypatch, onnx="other.package:Onnx")
    with pytest.raises(CatalogError, match=r"adapters\.onnx_runtime:OnnxAdapter of turnout, and other\.package:Onnx"):
        table()


def install(site, package, runtime):
    """Put an installed package that offers an adapter into a folder of packages."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{catalog.ENTRY_POINTS}]\n{runtime} = {package}:Adapter\n")


def test_packages_that_offer_one_runtime_are_both_named(monkeypatch, tmp_path):
    """Two installed packages with the same runtime are an error that names both and says what to do."""
    install(tmp_path, "one", "theirs")
    install(tmp_path, "other", "theirs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CatalogError) as caught:
        table()
    said = str(caught.value)
    assert said.startswith("runtime 'theirs' has two adapters: ")
    assert {"one:Adapter of one", "other:Adapter of other", "uninstall one"} <= {
        part for half in said.partition(": ")[2].split(", and ") for part in half.split("; ")
    }


def test_what_is_offered():
    """A runtime of ours is offered, one that no package brings is not."""
    assert catalog.is_offered("onnx")
    assert not catalog.is_offered("remote")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no_such_module:X", "cannot be imported: No module named 'no_such_module'"),
        ("adapters.threads:Nothing", "module 'adapters.threads' has no 'Nothing'"),
    ],
)
def test_an_adapter_that_is_not_there_is_named(monkeypatch, place, reason):
    """A place that cannot be imported fails the load in words."""
    points(monkeypatch, mine=place)
    with pytest.raises(LoadFailed, match=reason):
        adapter_for("mine")


def test_a_missing_extra_is_named(monkeypatch):
    """A runtime whose packages are not installed says which extra brings them."""
    monkeypatch.setitem(catalog.ADAPTERS, "sklearn", "no_such_module:X")
    with pytest.raises(LoadFailed, match=r"install turnout\[sklearn\]"):
        adapter_for("sklearn")


def test_an_unknown_runtime_lists_the_known_ones():
    """A runtime that nobody offers is refused with those that are."""
    with pytest.raises(LoadFailed, match="'nope' is none of jvm, onnx, python, sklearn"):
        adapter_for("nope")


async def test_a_runtime_without_a_worker_has_no_command(tmp_path):
    """Asking for the worker of an in-process runtime fails in words."""
    with pytest.raises(LoadFailed, match="runs in no worker"):
        await worker_command("onnx", source(tmp_path, tmp_path, {}))


def test_the_table_loads_no_runtime():
    """Importing the table, and the supervisor that uses it, imports no engine."""
    code = (
        "import sys, adapters.catalog, adapters.worker.supervisor, adapters.golden\n"
        "print(sorted({'onnxruntime', 'sklearn', 'skops', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
