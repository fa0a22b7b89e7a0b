"""Writes one straight line as versions of each runtime, for checks that need values that differ from row to row.

All take `x` FP64 [-1] and answer `value` = 0.3 x + 1, up to the last bits.
"""

import json
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from bench import versions

SLOPE: Final = 0.3
HEIGHT: Final = 1.0
PYTHON: Final = f'''"""A model that answers a straight line."""


class Line:
    """Answers slope * x + height."""

    def predict(self, inputs):
        """Return one value a row."""
        return {{"{versions.OUTPUT}": {SLOPE} * inputs["{versions.INPUT}"] + {HEIGHT}}}
'''
JAVA: Final = f"""import dev.turnout.spi.*;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Answers a straight line. */
public final class LineModel implements Model {{
    @Override
    public void load(Path directory, Map<String, String> options) {{}}

    @Override
    public List<TensorSpec> inputs() {{
        return List.of(TensorSpec.of("{versions.INPUT}", Datatype.FP64, -1));
    }}

    @Override
    public List<TensorSpec> outputs() {{
        return List.of(TensorSpec.of("{versions.OUTPUT}", Datatype.FP64, -1));
    }}

    @Override
    public Batch predict(Batch inputs) {{
        double[] values = inputs.get("{versions.INPUT}").doubles();
        for (int at = 0; at < values.length; at++) {{
            values[at] = {SLOPE} * values[at] + {HEIGHT};
        }}
        return Batch.of("{versions.OUTPUT}", Tensor.ofDoubles(values));
    }}
}}
"""


def value_at(x: float) -> float:
    """Return what every version answers for one row."""
    return SLOPE * x + HEIGHT


def write_onnx(folders: list[Path]) -> None:
    """Write ONNX graphs."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only checks that write models pay for it

    graph = helper.make_graph(
        [
            helper.make_node("Mul", [versions.INPUT, "slope"], ["rise"]),
            helper.make_node("Add", ["rise", "height"], [versions.OUTPUT]),
        ],
        "line",
        [helper.make_tensor_value_info(versions.INPUT, TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info(versions.OUTPUT, TensorProto.DOUBLE, ["n"])],
        [
            helper.make_tensor("slope", TensorProto.DOUBLE, [], [SLOPE]),
            helper.make_tensor("height", TensorProto.DOUBLE, [], [HEIGHT]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_sklearn(folders: list[Path]) -> None:
    """Write linear regressions, saved by skops."""
    import skops.io  # noqa: PLC0415
    from sklearn.linear_model import LinearRegression  # noqa: PLC0415

    x = np.linspace(-50, 50, 11)
    model = LinearRegression().fit(x.reshape(-1, 1), SLOPE * x + HEIGHT)
    for folder in folders:
        folder.mkdir(parents=True)
        skops.io.dump(model, folder / "model.skops")


def write_spark(folders: list[Path]) -> None:
    """Write saved PipelineModels of one SQL statement; one is made, the others are its copies."""
    first, *others = folders
    sql = f"SELECT *, {versions.INPUT} * {SLOPE}D + {HEIGHT}D AS {versions.OUTPUT} FROM __THIS__"
    versions.write_spark_sql({first: sql})
    manifest = {"runtime": "jvm", "artifact": "pipeline", "options": {"kind": "spark"}}
    (first / "model.yaml").write_text(json.dumps({**manifest, "signature": versions.signature()}))
    for folder in others:
        shutil.copytree(first, folder)


def write_spi(folders: list[Path]) -> None:
    """Write jars; one is compiled, the others are its copies."""
    first, *others = folders
    first.mkdir(parents=True)
    versions.build_jar(first / "model.jar", {"LineModel": JAVA})
    manifest = {"runtime": "jvm", "artifact": "model.jar", "options": {"kind": "spi", "heap": "64m"}}
    (first / "model.yaml").write_text(json.dumps(manifest))
    for folder in others:
        shutil.copytree(first, folder)


def write_python(folders: list[Path]) -> None:
    """Write classes for the Python worker."""
    manifest = {
        "runtime": "python",
        "artifact": "line_model.py",
        "options": {"class": "line_model:Line"},
        "signature": versions.signature(),
    }
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "line_model.py").write_text(PYTHON)
        (folder / "model.yaml").write_text(json.dumps(manifest))
