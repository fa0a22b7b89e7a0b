"""From a runtime's name to its adapter: one table, and the entry points of other packages. Imports on first use only.

It must not import a runtime before somebody asks for it: the parent reads this table and loads no engine.
"""

import importlib
from importlib.metadata import entry_points
from typing import Any, Final

from adapters.interface import Adapter, LoadFailed, ModelSource
from adapters.worker.command import WorkerCommand

ENTRY_POINTS: Final = "turnout.adapters"
ADAPTERS: Final = {
    "jvm": "adapters.jvm.adapter:JvmAdapter",
    "onnx": "adapters.onnx_runtime:OnnxAdapter",
    "python": "adapters.worker.python_adapter:PythonAdapter",
    "sklearn": "adapters.scikit:ScikitAdapter",
}
WORKERS: Final = {
    "jvm": "adapters.jvm.adapter:worker_command",
    "python": "adapters.worker.python_adapter:worker_command",
}
EXTRAS: Final = {"sklearn": "sklearn"}


class CatalogError(Exception):
    """The table of adapters is at odds with itself: one runtime, two adapters."""


def table() -> dict[str, str]:
    """Return every runtime with its `module:Class`. Raises CatalogError for a runtime that two packages offer."""
    known = dict(ADAPTERS)
    packages: dict[str, str] = {}
    for point in entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist is not None else "an unknown package"
        if point.name in known:
            first = f"{known[point.name]} of {packages.get(point.name, 'turnout')}"
            raise CatalogError(
                f"runtime '{point.name}' has two adapters: {first}, and {point.value} of {package}; uninstall one"
            )
        known[point.name] = point.value
        packages[point.name] = package
    return known


def is_offered(runtime: str) -> bool:
    """Tell whether `runtime` has an adapter. Raises CatalogError; packages are asked only for a runtime not ours."""
    return runtime in ADAPTERS or runtime in table()


def adapter_for(runtime: str) -> Adapter:
    """Return the adapter of `runtime`. Raises LoadFailed for an unknown runtime or a package that is not installed."""
    known = table()
    if runtime not in known:
        raise LoadFailed(f"runtime '{runtime}' is none of {', '.join(sorted(known))}")
    adapter: Adapter = _resolve(runtime, known[runtime])()
    return adapter


async def worker_command(runtime: str, source: ModelSource) -> WorkerCommand:
    """Return the command that starts a worker for `source`. Raises LoadFailed where none can be started."""
    if runtime not in WORKERS:
        raise LoadFailed(f"runtime '{runtime}' runs in no worker")
    command: WorkerCommand = await _resolve(runtime, WORKERS[runtime])(source)
    return command


def _resolve(runtime: str, place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        extra = EXTRAS.get(runtime)
        fix = f"; install turnout[{extra}]" if extra else ""
        raise LoadFailed(f"runtime '{runtime}' cannot be imported: {error}{fix}") from error
    except AttributeError as error:
        raise LoadFailed(f"runtime '{runtime}': module '{module}' has no '{name}'") from error
