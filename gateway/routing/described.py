"""Versions and routes in the words of the protocol: metadata, Triton's configuration, index states. Pure."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from gateway.doors.interface import IndexEntry
from gateway.serving.served_version import ServedVersion
from gateway.serving.stages import Stage
from turnout.core.manifest import Batching, Runtime
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import Snapshot, VersionEntry
from turnout.core.tensor import Datatype

READY: Final = "READY"
LOADING: Final = "LOADING"
UNAVAILABLE: Final = "UNAVAILABLE"
UNLOADING: Final = "UNLOADING"

_STATES: Final = {
    Stage.LOADING: LOADING,
    Stage.WARMING: LOADING,
    Stage.READY: READY,
    Stage.LOST: UNAVAILABLE,
    Stage.FAILED: UNAVAILABLE,
    Stage.DRAINING: UNLOADING,
    Stage.UNLOADED: UNLOADING,
}


def platform(entry: VersionEntry) -> str:
    """Return `<project>_<format>` of a version's artifact; for ONNX the name that Triton's clients know."""
    suffix = PurePosixPath(entry.artifact).suffix.lstrip(".")
    match entry.runtime:
        case Runtime.ONNX:
            return "onnxruntime_onnx"
        case Runtime.SKLEARN:
            return f"sklearn_{suffix}"
        case Runtime.JVM:
            kind = entry.options.get("kind") or ("spi" if suffix == "jar" else "spark")
            return "spark_pipeline" if kind == "spark" else "jvm_spi"
        case Runtime.PYTHON:
            return "python_worker"
        case Runtime.REMOTE:
            return "remote_oip"


def batch_rows(entry: VersionEntry, signature: Signature) -> int:
    """Return the most rows that the gateway may gather into one call; 0 where axis 0 is not rows everywhere."""
    if any(spec.shape[:1] != (-1,) for spec in (*signature.inputs, *signature.outputs)):
        return 0
    if isinstance(entry.batching, Batching):
        return entry.batching.max_rows
    return Batching().max_rows if entry.batching else 0


def configuration(name: str, entry: VersionEntry, signature: Signature, *, gathers: bool) -> Mapping[str, object]:
    """Return Triton's model configuration: with rows, `dims` leave their axis out; `gathers` is dynamic batching."""
    rows = batch_rows(entry, signature)
    return {
        **({"dynamic_batching": {}} if gathers else {}),
        "name": name,
        "platform": platform(entry),
        "backend": str(entry.runtime),
        "max_batch_size": rows,
        "input": [_configured(spec, batched=rows > 0) for spec in signature.inputs],
        "output": [_configured(spec, batched=rows > 0) for spec in signature.outputs],
    }


def index(snapshot: Snapshot, held: Iterable[ServedVersion], leaving: Iterable[ServedVersion]) -> list[IndexEntry]:
    """Return every version that the snapshot knows with its state, by name and number."""
    known: dict[tuple[str, str], IndexEntry] = {}
    for problem, reason in snapshot.problems.items():
        name, _, number = problem.partition("@")
        known[name, number] = IndexEntry(name, number, UNAVAILABLE, reason)
    for version in snapshot.catalogue:
        name, _, number = version.partition("@")
        known[name, number] = IndexEntry(name, number, UNAVAILABLE, "not loaded")
    for served in (*leaving, *held):
        name, number = served.ref.model, str(served.ref.number)
        resting = served.why_not
        state = UNAVAILABLE if resting else _STATES[served.stage]
        known[name, number] = IndexEntry(name, number, state, resting or served.reason)
    return sorted(known.values(), key=lambda entry: (entry.name, len(entry.version), entry.version))


def _configured(spec: TensorSpec, *, batched: bool) -> Mapping[str, object]:
    dims = list(spec.shape[1:] if batched else spec.shape)
    kind = "STRING" if spec.datatype is Datatype.BYTES else str(spec.datatype)
    configured: dict[str, object] = {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": dims or [1]}
    if not dims:
        configured["reshape"] = {"shape": []}
    return configured
