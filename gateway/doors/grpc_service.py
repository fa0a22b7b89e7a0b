"""Everything the gRPC door offers beside prediction: metadata, readiness, configuration, statistics, the repository."""

from collections.abc import Awaitable, Callable, Mapping

from google.protobuf import json_format

from gateway.doors.about import EXTENSIONS, SERVER_NAME, SERVER_VERSION, check_repository_call
from gateway.doors.envelope import version_number
from gateway.doors.grpc_codec import parse
from gateway.doors.interface import Backend, Timing, VersionStatistics
from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.wire import inference_pb2 as pb


class Service:
    """The unary methods of GRPCInferenceService but ModelInfer: serialised message in, serialised answer out."""

    def __init__(self, backend: Backend, *, repository_control: bool) -> None:
        self._backend = backend
        self._repository_control = repository_control

    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[bytes]]]:
        """Return the methods by their names on the wire."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
            "RepositoryModelUnload": self.repository_model_unload,
        }

    async def server_live(self, message: bytes) -> bytes:
        """Tell that the process answers."""
        parse(pb.ServerLiveRequest, message)
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, message: bytes) -> bytes:
        """Tell whether the server is ready."""
        parse(pb.ServerReadyRequest, message)
        return pb.ServerReadyResponse(ready=self._backend.is_ready()).SerializeToString()

    async def model_ready(self, message: bytes) -> bytes:
        """Tell whether a route's champion, or a version, is ready."""
        asked = parse(pb.ModelReadyRequest, message)
        ready = self._backend.is_model_ready(asked.name, version_number(asked.version, asked.name))
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, message: bytes) -> bytes:
        """Describe the server."""
        parse(pb.ServerMetadataRequest, message)
        answer = pb.ServerMetadataResponse(name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)
        return answer.SerializeToString()

    async def model_metadata(self, message: bytes) -> bytes:
        """Describe a route or a version."""
        asked = parse(pb.ModelMetadataRequest, message)
        model = self._backend.describe(asked.name, version_number(asked.version, asked.name))
        answer = pb.ModelMetadataResponse(
            name=model.name,
            versions=model.versions,
            platform=model.platform,
            inputs=map(_spec, model.inputs),
            outputs=map(_spec, model.outputs),
            properties=model.properties,
        )
        return answer.SerializeToString()

    async def model_config(self, message: bytes) -> bytes:
        """Show the model's configuration as Triton's clients read it."""
        asked = parse(pb.ModelConfigRequest, message)
        values = self._backend.configuration(asked.name, version_number(asked.version, asked.name))
        # What only the HTTP form of the configuration says has no field here.
        config = json_format.ParseDict(dict(values), pb.ModelConfig(), ignore_unknown_fields=True)
        return pb.ModelConfigResponse(config=config).SerializeToString()

    async def model_statistics(self, message: bytes) -> bytes:
        """Show counters of all versions, of a route's, or of one."""
        asked = parse(pb.ModelStatisticsRequest, message)
        found = self._backend.statistics(asked.name or None, version_number(asked.version, asked.name))
        return pb.ModelStatisticsResponse(model_stats=map(_statistics, found)).SerializeToString()

    async def repository_index(self, message: bytes) -> bytes:
        """List the versions that the repository knows."""
        asked = parse(pb.RepositoryIndexRequest, message)
        _refuse_repository(asked.repository_name)
        answer = pb.RepositoryIndexResponse()
        for entry in self._backend.index(ready_only=asked.ready):
            answer.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return answer.SerializeToString()

    async def repository_model_load(self, message: bytes) -> bytes:
        """Read a model from the folder again; answers when it has taken effect."""
        asked = parse(pb.RepositoryModelLoadRequest, message)
        await self._backend.repository_load(self._repository_model(asked))
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def repository_model_unload(self, message: bytes) -> bytes:
        """Drop a model; answers when it has taken effect."""
        asked = parse(pb.RepositoryModelUnloadRequest, message)
        await self._backend.repository_unload(self._repository_model(asked))
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    def _repository_model(self, asked: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
        check_repository_call(allowed=self._repository_control, parameters=asked.parameters)
        _refuse_repository(asked.repository_name)
        return asked.model_name


def _refuse_repository(name: str) -> None:
    """Raise InvalidInput for a named repository; a client of another numbering sends a model's name there."""
    if name:
        raise InvalidInput(f"repository_name (field 1): there are no named repositories, got '{name[:128]}'")


def _spec(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _statistics(version: VersionStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=version.name,
        version=version.version,
        last_inference=version.last_inference_ms,
        inference_count=version.inference_count,
        execution_count=version.execution_count,
        inference_stats=pb.InferStatistics(
            success=_timing(version.success),
            fail=_timing(version.fail),
            queue=_timing(version.queue),
            compute_input=_timing(version.compute_input),
            compute_infer=_timing(version.compute_infer),
            compute_output=_timing(version.compute_output),
        ),
    )


def _timing(timing: Timing) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=timing.count, ns=timing.ns)
