"""The `python` runtime: a class of the user's, in a worker with an interpreter of its choice.

It must not import the model's code: only the worker does.
"""

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

import adapters
from adapters.interface import Adapter, LoadedModel, LoadFailed, ModelSource
from adapters.worker.command import WorkerCommand
from adapters.worker.model import WorkerModel
from turnout.core.manifest import PythonOptions

_ROOT: Final = str(Path(next(iter(adapters.__path__))).resolve().parent)
# The worker's own files are found behind everything that the interpreter has, and only while they are imported.
_BOOT: Final = (
    "import sys; sys.path.append({root!r}); from adapters.worker.python_worker import main; sys.path.pop(); main()"
)


class PythonAdapter(Adapter):
    """Serves a version through the worker that the parent runs for it."""

    runtime = "python"

    async def load(self, source: ModelSource) -> LoadedModel:
        """Connect to the version's worker. Raises LoadFailed with the reason."""
        return await WorkerModel.connect(source)


async def worker_command(source: ModelSource) -> WorkerCommand:
    """Return the command of the version's worker. Raises LoadFailed for a folder or options that do not allow one."""
    options = _options(source.options)
    if not source.trusted:
        raise LoadFailed("runtime python runs the folder's code, and this folder is not trusted")
    python = shutil.which(options.python) if options.python else sys.executable
    if not python:
        raise LoadFailed(f"options.python: there is no interpreter at '{options.python}'")
    return WorkerCommand(
        argv=(python, "-u", "-c", _BOOT.format(root=_ROOT)),
        # A version's files are shared and checked by digest: nothing is written beside them.
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )


def _options(given: Any) -> PythonOptions:
    try:
        return msgspec.convert(dict(given), PythonOptions)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"options: {error}") from error
