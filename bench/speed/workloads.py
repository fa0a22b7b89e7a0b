"""The workloads of the bench: which model, which requests, by which door, and which bare handler stands beside.

Writes the models and their requests with what must come back; starts nothing.
"""

from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench import workload
from bench.speed import models
from bench.speed.requests import SET, Requests, binary, echoed, grpc_rows, json_rows, of_onnx, of_sklearn, strings
from bench.speed.table import GRPC, HTTP

HTTP_ROW: Final = "HTTP JSON, 1 row, ONNX"
HTTP_ROWS: Final = "HTTP JSON, 32 rows, ONNX"
SMALL_BINARY: Final = "HTTP binary, 4 KiB, echo"
BIG_BINARY: Final = "HTTP binary, 1 MiB, echo"
STRINGS: Final = "HTTP JSON, 1 row of 8 strings, ONNX"
GRPC_ROW: Final = "gRPC raw, 1 row, ONNX"
SKLEARN: Final = "HTTP JSON, 1 row, scikit-learn"
SLOW: Final = "HTTP JSON, 1 row, a model of 2 ms"
SPARK: Final = "HTTP JSON, 1 row, Spark"

BARE_JSON: Final = "bare ASGI, ONNX Runtime"
BARE_ECHO: Final = "bare ASGI, echo"
BARE_GRPC: Final = "bare grpc.aio, ONNX Runtime"
UNBATCHED: Final = "slow-unbatched"
CANCER: Final = "cancer"
SCIKIT: Final = "scikit"
SLOW_MODEL: Final = "slow"
SPARK_MODEL: Final = "spark"


class Workload(msgspec.Struct, frozen=True):
    """Requests to one model by one door; `bare` is the bare handler that does the same work, with what it is sent."""

    name: str
    door: str
    model: str
    requests: Requests
    bare: str | None = None
    bare_requests: Requests | None = None

    @property
    def path(self) -> str:
        """The path of the gateway's HTTP door."""
        return f"/v2/models/{self.model}/infer"


def write_light(folder: Path) -> tuple[list[Workload], float]:
    """Write the models that run in the gateway's process; return their workloads, and the slow model's seconds."""
    rows = workload.rows()
    single = [row[None] for row in rows[:SET]]
    many = [rows[at : at + 32] for at in range(SET)]
    double = [row.astype(np.float64) for row in single]
    onnx = workload.write_model(folder)
    scikit = models.write_sklearn(folder / SCIKIT)
    models.write_echo(folder / "echo")
    models.write_strings(folder / "strings")
    slow_s = models.write_slow(folder / SLOW_MODEL, batching=True)
    models.write_slow(folder / UNBATCHED, batching=False)
    one, thirty_two = json_rows(single, of_onnx(onnx, single)), json_rows(many, of_onnx(onnx, many))
    small, big = binary(1 << 10), binary(1 << 18)
    raw = grpc_rows(single, of_onnx(onnx, single))
    slow = json_rows(single, of_onnx(folder / SLOW_MODEL / "model.onnx", single))
    return [
        Workload(HTTP_ROW, HTTP, CANCER, one, BARE_JSON, one),
        Workload(HTTP_ROWS, HTTP, CANCER, thirty_two, BARE_JSON, thirty_two),
        Workload(SMALL_BINARY, HTTP, "echo", small, BARE_ECHO, echoed(small)),
        Workload(BIG_BINARY, HTTP, "echo", big, BARE_ECHO, echoed(big)),
        Workload(GRPC_ROW, GRPC, CANCER, raw, BARE_GRPC, raw),
        Workload(STRINGS, HTTP, "strings", strings()),
        Workload(SKLEARN, HTTP, SCIKIT, json_rows(double, of_sklearn(scikit, double))),
        Workload(SLOW, HTTP, SLOW_MODEL, slow),
    ], slow_s


def write_spark(folder: Path) -> list[Workload]:
    """Write the Spark model and its ONNX twin; return their workloads, Spark's first."""
    rows = workload.rows()
    single = [row[None] for row in rows[:SET]]
    double = [row.astype(np.float64) for row in single]
    onnx = workload.write_model(folder)
    answers = models.write_spark(folder / SPARK_MODEL, rows.astype(np.float64), SET)
    expected = [{name: values[at] for name, values in answers.items()} for at in range(SET)]
    return [
        Workload(SPARK, HTTP, SPARK_MODEL, json_rows(double, expected)),
        Workload(HTTP_ROW, HTTP, CANCER, json_rows(single, of_onnx(onnx, single))),
    ]
