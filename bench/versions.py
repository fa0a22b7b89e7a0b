"""Writes small model versions for checks: each answers a constant of its own, so that an answer tells who gave it.

All take `x` FP64 [-1, 1] (presented `[-1]`) and answer `value` FP64 [-1].
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import adapters.jvm

INPUT = "x"
OUTPUT = "value"


def write_onnx(folder: Path, constant: float, *, delay_nodes: int = 0) -> None:
    """Write an ONNX version: `value = 0 * x + constant`, behind `delay_nodes` useless additions."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only checks that write models pay for it

    folder.mkdir(parents=True, exist_ok=True)
    nodes = [helper.make_node("Mul", [INPUT, "zero"], ["h0"])]
    nodes += [helper.make_node("Add", [f"h{i}", "zero"], [f"h{i + 1}"]) for i in range(delay_nodes)]
    nodes.append(helper.make_node("Add", [f"h{delay_nodes}", "constant"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["n"])],
        [
            helper.make_tensor("zero", TensorProto.DOUBLE, [], [0.0]),
            helper.make_tensor("constant", TensorProto.DOUBLE, [], [constant]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def write_sklearn(folder: Path, constant: float) -> None:
    """Write a scikit-learn version: a DummyRegressor, saved by skops."""
    import skops.io  # noqa: PLC0415
    from sklearn.dummy import DummyRegressor  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    model = DummyRegressor(strategy="constant", constant=constant).fit(np.zeros((2, 1)), np.zeros(2))
    skops.io.dump(model, folder / "model.skops")


def write_python(folder: Path, constant: float) -> None:
    """Write a version for the Python worker: one class in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constant_model.py").write_text(
        '"""A model that answers a constant."""\n\n'
        "import numpy as np\n\n\n"
        "class Constant:\n"
        '    """Answers the same number for each row."""\n\n'
        "    def predict(self, inputs):\n"
        '        """Return one value a row."""\n'
        f'        return {{"{OUTPUT}": np.full(len(inputs["{INPUT}"]), {constant!r})}}\n'
    )
    manifest = {
        "runtime": "python",
        "artifact": "constant_model.py",
        "options": {"class": "constant_model:Constant"},
        "signature": signature(),
    }
    (folder / "model.yaml").write_text(json.dumps(manifest, indent=2) + "\n")


def signature() -> dict[str, Any]:
    """Return the declared signature that all these versions share."""
    return {
        "inputs": [{"name": INPUT, "datatype": "FP64", "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP64", "shape": [-1]}],
    }


def write_routes(folder: Path, routes: dict[str, Any]) -> None:
    """Replace the folder's routes.yaml whole, by rename."""
    temporary = folder / ".routes.yaml.new"
    temporary.write_text(json.dumps({"routes": routes}, indent=2) + "\n")
    temporary.rename(folder / "routes.yaml")


def write_spark(folders: dict[Path, float]) -> None:
    """Write Spark versions, each a saved PipelineModel whose SQL answers its constant."""
    write_spark_sql({f: f"SELECT *, x * 0.0D + {constant}D AS value FROM __THIS__" for f, constant in folders.items()})
    for folder in folders:
        manifest = {"runtime": "jvm", "artifact": "pipeline", "options": {"kind": "spark"}, "signature": signature()}
        (folder / "model.yaml").write_text(json.dumps(manifest, indent=2) + "\n")


def write_spark_sql(statements: dict[Path, str]) -> None:
    """Save a PipelineModel of one SQLTransformer under `pipeline` in each folder; one Spark session for all."""
    script = (
        "import json, sys\n"
        "from pyspark.ml import PipelineModel\n"
        "from pyspark.ml.feature import SQLTransformer\n"
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').getOrCreate()\n"
        "for path, statement in json.loads(sys.argv[1]).items():\n"
        "    PipelineModel([SQLTransformer(statement=statement)]).write().overwrite().save(path)\n"
        "spark.stop()\n"
    )
    artifacts = {str(folder / "pipeline"): statement for folder, statement in statements.items()}
    subprocess.run([sys.executable, "-c", script, json.dumps(artifacts)], check=True, capture_output=True)


CONSTANT_JAVA = """import dev.turnout.spi.*;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Answers the constant that its folder holds. */
public final class ConstantModel implements Model {
    private double constant;

    @Override
    public void load(Path directory, Map<String, String> options) {
        try {
            constant = Double.parseDouble(java.nio.file.Files.readString(directory.resolve("constant.txt")));
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return List.of(TensorSpec.of("x", Datatype.FP64, -1));
    }

    @Override
    public List<TensorSpec> outputs() {
        return List.of(TensorSpec.of("value", Datatype.FP64, -1));
    }

    @Override
    public Batch predict(Batch inputs) {
        double[] values = new double[inputs.rows()];
        java.util.Arrays.fill(values, constant);
        return Batch.of("value", Tensor.ofDoubles(values));
    }
}
"""


def write_spi(folder: Path, constant: float) -> None:
    """Write a version for the JVM worker: a jar with one class that implements the SPI, compiled here."""
    folder.mkdir(parents=True, exist_ok=True)
    build_jar(folder / "model.jar", {"ConstantModel": CONSTANT_JAVA})
    (folder / "constant.txt").write_text(str(constant))
    manifest = {"runtime": "jvm", "artifact": ".", "options": {"kind": "spi", "jars": ["model.jar"]}}
    (folder / "model.yaml").write_text(json.dumps(manifest, indent=2) + "\n")


def build_jar(jar: Path, sources: dict[str, str]) -> None:
    """Compile Java sources (class name to text) against the SPI; the first class is the model."""
    spi = Path(adapters.jvm.__file__).with_name("java") / "spi"
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary, "src")
        classes = Path(temporary, "classes")
        services = classes / "META-INF" / "services"
        written.mkdir()
        services.mkdir(parents=True)
        for name, text in sources.items():
            (written / f"{name}.java").write_text(text)
        api = Path(temporary, "api")
        files = [str(path) for path in spi.rglob("*.java") if path.name != "package-info.java"]
        subprocess.run(["javac", "--release", "17", "-d", str(api), *files], check=True)
        files = [str(path) for path in written.glob("*.java")]
        subprocess.run(["javac", "--release", "17", "-cp", str(api), "-d", str(classes), *files], check=True)
        (services / "dev.turnout.spi.Model").write_text(next(iter(sources)) + "\n")
        subprocess.run(["jar", "--create", "--file", str(jar), "-C", str(classes), "."], check=True)
