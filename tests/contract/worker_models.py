"""The model that the conformance suite has every worker serve, once in each language.

Inputs `x` FP64 [-1] and `hold_ms` INT64 [-1]; outputs `y` = 2 x FP64 [-1] and `z` = x + 1 FP64 [-1]. It takes the sum
of `hold_ms` in milliseconds. x = 13 is a fault of the model, a negative x is the caller's, naming row and tensor.
With option `broken` it refuses to load, saying `broken: VALUE`; with option `noise` it prints VALUE on standard output.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from adapters.catalog import worker_command
from adapters.interface import ModelSource
from adapters.worker.command import WorkerCommand
from tests import jvm_builds
from turnout.core.manifest import DeclaredSignature

PYTHON_MODEL: Final = '''
import time

import numpy as np


class InvalidInput(Exception):
    """The caller's fault."""


class Holder:
    signature = {
        "inputs": [
            {"name": "x", "datatype": "FP64", "shape": [-1]},
            {"name": "hold_ms", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP64", "shape": [-1]},
            {"name": "z", "datatype": "FP64", "shape": [-1]},
        ],
    }

    def load(self, path, options):
        self.noise = options.get("noise")
        if "broken" in options:
            raise RuntimeError("broken: " + options["broken"])

    def predict(self, inputs):
        x = inputs["x"]
        if self.noise:
            print(self.noise, flush=True)
        for row in np.flatnonzero(x < 0):
            raise InvalidInput(f"tensor 'x': row {row}: must not be negative")
        if (x == 13).any():
            raise ValueError("thirteen")
        time.sleep(int(inputs["hold_ms"].sum()) / 1000)
        return {"y": 2 * x, "z": x + 1}
'''

JAVA_MODEL: Final = """
import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Model;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

public final class Holder implements Model {
    private String noise;

    @Override
    public void load(Path directory, Map<String, String> options) {
        noise = options.get("noise");
        if (options.containsKey("broken")) {
            throw new IllegalStateException("broken: " + options.get("broken"));
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return List.of(TensorSpec.of("x", Datatype.FP64, -1), TensorSpec.of("hold_ms", Datatype.INT64, -1));
    }

    @Override
    public List<TensorSpec> outputs() {
        return List.of(TensorSpec.of("y", Datatype.FP64, -1), TensorSpec.of("z", Datatype.FP64, -1));
    }

    @Override
    public Batch predict(Batch batch) throws Exception {
        double[] x = batch.get("x").doubles();
        double[] y = new double[x.length];
        double[] z = new double[x.length];
        if (noise != null) {
            System.out.println(noise);
        }
        for (int row = 0; row < x.length; row++) {
            if (x[row] < 0) {
                throw new InvalidInput("tensor 'x': row " + row + ": must not be negative");
            }
            if (x[row] == 13) {
                throw new IllegalArgumentException("thirteen");
            }
            y[row] = 2 * x[row];
            z[row] = x[row] + 1;
        }
        long holdMs = 0;
        for (long each : batch.get("hold_ms").longs()) {
            holdMs += each;
        }
        Thread.sleep(holdMs);
        return Batch.of("y", Tensor.ofDoubles(y)).and("z", Tensor.ofDoubles(z));
    }
}
"""


class WorkerModel(msgspec.Struct, frozen=True):
    """The model as one worker serves it."""

    runtime: str
    source: ModelSource

    def command(self) -> WorkerCommand:
        """Return the command of its worker."""
        return asyncio.run(worker_command(self.runtime, self.source))


def python_model(folder: Path) -> WorkerModel:
    """Lay the model out for the Python worker."""
    (folder / "conformance_model.py").write_text(PYTHON_MODEL)
    return WorkerModel("python", source(folder, Path(), {"class": "conformance_model:Holder"}))


def java_model(folder: Path) -> WorkerModel:
    """Lay the model out for the JVM worker."""
    (folder / "Holder.java").write_text(JAVA_MODEL)
    jars = jvm_builds.java_jars([folder / "Holder.java"], {"holder.jar": ["Holder"]})
    return WorkerModel("jvm", source(jars, Path("holder.jar"), {}, scratch=jvm_builds.CACHE))


def source(folder: Path, artifact: Path, options: dict[str, object], *, scratch: Path | None = None) -> ModelSource:
    """Return what the adapter of a laid out model loads from."""
    return ModelSource(
        name="holder@1",
        directory=folder,
        artifact=artifact,
        declared=DeclaredSignature(),
        options=options,
        trusted=True,
        scratch=scratch or folder / "scratch",
        socket=folder / "s",
    )


# One line for each worker: a function that lays the model out in a folder.
WORKERS: Final = {"jvm": java_model, "python": python_model}
