"""The `jvm` runtime: jars that implement the SPI, and saved Spark PipelineModels, each in a Java worker of its own.

It must not run Java inside the gateway: the parent owns the worker, the gateway speaks to its socket.
"""

from adapters.interface import LoadedModel, ModelSource
from adapters.jvm.command import worker_command
from adapters.jvm.options import read_options
from adapters.worker.model import WorkerModel

__all__ = ["JvmAdapter", "worker_command"]


class JvmAdapter:
    """Serves a version through the worker that the parent runs for it."""

    runtime = "jvm"

    async def load(self, source: ModelSource) -> LoadedModel:
        """Connect to the version's worker. Raises LoadFailed with the reason."""
        _, options = read_options(source)
        return await WorkerModel.connect(source, options.cpus)
