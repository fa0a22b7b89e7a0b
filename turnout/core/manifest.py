"""What a version declares: the content of `model.yaml` and of a golden file (DESIGN 5)."""

import enum
import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from turnout.core.signature import TensorSpec
from turnout.core.tensor import MAX_RANK, Datatype

About: TypeAlias = msgspec.Meta
"""What a key means, for the reference: `Annotated[T, About(description="…")]`."""

Positive = Annotated[int, msgspec.Meta(ge=1)]
_HEAP: Final = re.compile(r"[1-9][0-9]*[kKmMgG]")
_CLASS: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_specs(kind: str, specs: Iterable[TensorSpec]) -> None:
    """Refuse nameless and repeated tensors, negative axes other than -1 and absurd ranks. Raises ValueError."""
    seen: set[str] = set()
    for spec in specs:
        if not spec.name:
            raise ValueError(f"an {kind} has no name")
        if spec.name in seen:
            raise ValueError(f"{kind} '{spec.name}' appears twice")
        if len(spec.shape) > MAX_RANK or any(axis < -1 for axis in spec.shape):
            raise ValueError(f"{kind} '{spec.name}': shape {list(spec.shape)} is none; -1 stands for any length")
        seen.add(spec.name)


class Runtime(enum.StrEnum):
    """The engines that a version may name."""

    ONNX = "onnx"
    SKLEARN = "sklearn"
    JVM = "jvm"
    PYTHON = "python"
    REMOTE = "remote"

    @property
    def uses_worker(self) -> bool:
        """Whether its models run in a process of their own, started by the parent."""
        return self in (Runtime.JVM, Runtime.PYTHON)


class DeclaredSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signature as declared; either half may be left out where the artifact tells it."""

    inputs: Annotated[tuple[TensorSpec, ...] | None, About(description="Tensors taken, by presented name.")] = None
    outputs: Annotated[tuple[TensorSpec, ...] | None, About(description="Tensors answered, by presented name.")] = None

    def __post_init__(self) -> None:
        """Refuse nameless, repeated and shapeless tensors with a ValueError."""
        check_specs("input", self.inputs or ())
        check_specs("output", self.outputs or ())


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The runtime's tensor names to presented names."""

    inputs: Annotated[dict[str, str], About(description="The runtime's input names to presented ones.")] = {}
    outputs: Annotated[dict[str, str], About(description="The runtime's output names to presented ones.")] = {}

    def __post_init__(self) -> None:
        """Refuse empty names, and one name for two tensors, with a ValueError."""
        for half, names in (("inputs", self.inputs), ("outputs", self.outputs)):
            origin: dict[str, str] = {}
            for name, presented in names.items():
                if not presented:
                    raise ValueError(f"{half}: '{name}' gets no name")
                first = origin.setdefault(presented, name)
                if first != name:
                    raise ValueError(f"{half}: '{first}' and '{name}' would both be called '{presented}'")


class Cast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Presented datatypes that differ from the runtime's, by presented name."""

    inputs: Annotated[
        dict[str, Datatype],
        About(description="Presented datatypes of inputs; floats round, an inexact integer is the caller's fault."),
    ] = {}
    outputs: Annotated[
        dict[str, Datatype],
        About(description="Presented datatypes of outputs; an inexact integer is the model's fault."),
    ] = {}


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests may be gathered into one call."""

    max_rows: Annotated[
        Positive,
        About(
            description="Most rows of one call that gathers requests; shown as `max_batch_size` in the model's "
            "configuration. A larger request is called by itself."
        ),
    ] = 64


class VersionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one version: calls at once, rows and bytes waiting behind them, and failures in a row."""

    in_flight: Annotated[Positive, About(description="Calls under way at once in a gateway process.")] = 64
    queue_rows: Annotated[int, msgspec.Meta(ge=0, description="Rows that may wait behind them.")] = 1024
    queue_bytes: Annotated[int, msgspec.Meta(ge=0, description="Bytes of the inputs that may wait behind them.")] = (
        256 * 1024 * 1024
    )
    failures: Annotated[
        int, msgspec.Meta(ge=0, description="Calls failed in a row until the version rests a while; 0: it never does.")
    ] = 20


class ValueMetrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upper bucket bounds of `turnout_predicted_value`."""

    value: Annotated[
        tuple[float, ...],
        About(description="Upper bounds of the buckets, rising; equal for all versions behind a route."),
    ] = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

    def __post_init__(self) -> None:
        """Refuse bounds that do not rise with a ValueError."""
        rising = all(low < high for low, high in pairwise(self.value))
        if not self.value or not rising or not all(map(math.isfinite, self.value)):
            raise ValueError("value: bucket bounds are finite numbers, each greater than the one before")


class OnnxOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`options` of runtime `onnx`."""

    providers: Annotated[
        tuple[str, ...], About(description="ONNX Runtime's execution providers, in order of preference.")
    ] = ("CPUExecutionProvider",)
    threads: Annotated[int, msgspec.Meta(ge=1, le=256, description="Threads inside one call.")] = 1


class SklearnOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`options` of runtime `sklearn`."""

    trusted_types: Annotated[
        tuple[str, ...],
        About(description="Types in a .skops file to trust beside the reviewed ones; in a trusted folder only."),
    ] = ()


class JvmKind(enum.StrEnum):
    """What a JVM model is: a saved Spark PipelineModel, or jars that implement the worker's interface."""

    SPARK = "spark"
    SPI = "spi"


class JvmOptions(msgspec.Struct, frozen=True):
    """`options` of runtime `jvm`. Other keys are handed to the class of a jar."""

    kind: Annotated[JvmKind | None, About(description="What the artifact is; told by it when absent.")] = None
    jars: Annotated[tuple[str, ...], About(description="Further jars beside `model.yaml`.")] = ()
    main: Annotated[str | None, About(description="Class that scores; else the one that the jar announces.")] = None
    heap: Annotated[str, About(description="The worker's heap, as after Java's `-Xmx`.")] = "512m"
    cpus: Annotated[int, msgspec.Meta(ge=1, le=64, description="Predictions that run at once.")] = 1
    standby: Annotated[
        int, msgspec.Meta(ge=0, le=1, description="Spare workers kept warm; in this release only 0.")
    ] = 0
    flags: Annotated[tuple[str, ...], About(description="Further flags of the JVM; in a trusted folder only.")] = ()
    binary: Annotated[
        tuple[str, ...], About(description="BYTES inputs that Spark takes as binary columns, not as text.")
    ] = ()
    spark_home: Annotated[
        str, About(description="Folder of Spark's jars; `auto` finds those of pyspark, else SPARK_HOME.")
    ] = "auto"

    def __post_init__(self) -> None:
        """Refuse a heap that Java does not read, and what is not in this release, with a ValueError."""
        if not _HEAP.fullmatch(self.heap):
            raise ValueError(f"heap '{self.heap}' is no size such as 512m or 2g")
        if self.standby:
            raise ValueError("standby: spare workers are not in this release; write 0 or leave it out")


class PythonOptions(msgspec.Struct, frozen=True):
    """`options` of runtime `python`. Other keys are handed to the class."""

    class_name: Annotated[str, About(description="`module:Class` in the artifact's folder.")] = msgspec.field(
        name="class"
    )
    python: Annotated[str | None, About(description="Interpreter to run it with; our own when absent.")] = None

    def __post_init__(self) -> None:
        """Refuse a class without its module with a ValueError."""
        if not _CLASS.fullmatch(self.class_name):
            raise ValueError(f"class must be module:Class, got '{self.class_name}'")


class RemoteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`options` of runtime `remote`."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(grpc|http|https)://", description="The other server.")]
    model: Annotated[str | None, About(description="The model's name there; the same when absent.")] = None


OPTIONS: Final[dict[Runtime, type[msgspec.Struct]]] = {
    Runtime.ONNX: OnnxOptions,
    Runtime.SKLEARN: SklearnOptions,
    Runtime.JVM: JvmOptions,
    Runtime.PYTHON: PythonOptions,
    Runtime.REMOTE: RemoteOptions,
}
"""What `options` may hold, by runtime; adapters read the plain mapping."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model.yaml`. Defaults are those of DESIGN 5; `None` means: not said."""

    model: Annotated[str | None, About(description="The model's name; the folder's when absent.")] = None
    runtime: Annotated[
        Runtime | None,
        About(description="The engine; told by the artifact's suffix when absent. `remote` is not in this release."),
    ] = None
    artifact: Annotated[
        str | None,
        About(description="File or folder beside this file, `.` for all; the one that tells a runtime when absent."),
    ] = None
    signature: Annotated[
        DeclaredSignature, About(description="Inputs and outputs, where the artifact does not tell them.")
    ] = DeclaredSignature()
    rename: Annotated[Rename, About(description="Other names for the runtime's tensors.")] = Rename()
    cast: Annotated[Cast, About(description="Other datatypes than the runtime's.")] = Cast()
    batching: Annotated[
        Batching | bool,
        About(
            description="Whether requests that wait are gathered into one call. `true`: where rows are shown not to "
            "depend on each other, up to 64; a mapping says that they do not; `false`: never ([batching](batching.md))."
        ),
    ] = True
    limits: Annotated[VersionLimits, About(description="Bounds of this version.")] = VersionLimits()
    golden: Annotated[
        str | None, About(description="File with inputs and the outputs they must give; replayed at every load.")
    ] = None
    metrics: Annotated[ValueMetrics, About(description="What is measured of predicted values.")] = ValueMetrics()
    options: Annotated[dict[str, Any], About(description="Options of the runtime, below.")] = {}
    lineage: Annotated[
        dict[str, Any], About(description="A record of where the version comes from; not part of its digest.")
    ] = {}


class GoldenTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of a golden file, in the protocol's JSON form."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: msgspec.Raw
    parameters: dict[str, bool | int | float | str] = {}


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Allowed difference of floats: `|got - want| <= abs + rel * |want|`; integers, booleans and text are exact."""

    abs: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    rel: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class GoldenTolerance(Tolerance, frozen=True, forbid_unknown_fields=True):
    """The file's tolerance, and those of single outputs by name."""

    outputs: dict[str, Tolerance] = {}


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`golden.json`: inputs with the outputs that the training side saw (DESIGN 5)."""

    producer: Annotated[str, msgspec.Meta(min_length=1)]
    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]
    tolerance: GoldenTolerance
