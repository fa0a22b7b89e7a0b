"""Writes models that misbehave on demand: the number in `x` says how, in each runtime that runs a user's code.

All take `x` FP64 [-1] and answer `value` FP64 [-1]; 0 is answered as it should be.
"""

import json
from pathlib import Path
from typing import Final

from bench import versions

FINE: Final = 0
BLOCK: Final = 1
EXIT_NOW: Final = 2
EXIT: Final = 3
FORK: Final = 4
THREADS: Final = 5
PRINT: Final = 6
NAN: Final = 7
WRONG_SHAPE: Final = 8
TOO_MANY_ROWS: Final = 9
RAISE: Final = 10
MEMORY: Final = 11

# A child of a fork that lives on holds the parent's sockets open: nobody may wait for it.
PYTHON: Final = '''"""A model that does what `x` asks for."""

import os
import sys
import threading
import time

import numpy as np


def act(what, rows):
    """Misbehave in one way; return the answer."""
    value = np.zeros(rows)
    if what == 1:
        while True:
            time.sleep(3600)
    if what == 2:
        os._exit(3)
    if what == 3:
        sys.exit(4)
    if what == 4:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    if what == 5:
        for _ in range(20):
            threading.Thread(target=time.sleep, args=(20,), daemon=False).start()
    if what == 6:
        print("noise " * 10_000)
        os.write(1, b"\\x00\\xff\\x10 no text, and no end of line")
    if what == 7:
        value[:] = np.nan
    if what == 8:
        return np.zeros((rows, 2))
    if what == 9:
        return np.zeros(rows + 1)
    if what == 10:
        raise RuntimeError("secret of the model")
    return value


class Moody:
    """The class of the Python worker."""

    def predict(self, inputs):
        """Do what the first row asks."""
        x = inputs["x"]
        return {"value": act(int(x[0]) if len(x) else 0, len(x))}
'''
JAVA: Final = """import dev.turnout.spi.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Does what the first row asks. */
public final class MoodyModel implements Model {
    @Override
    public void load(Path directory, Map<String, String> options) {
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
    public Batch predict(Batch inputs) throws Exception {
        int rows = inputs.rows();
        double[] values = new double[rows];
        switch (rows == 0 ? 0 : (int) inputs.get("x").doubleAt(0)) {
            case 1:
                Thread.sleep(Long.MAX_VALUE);
                break;
            case 2:
                Runtime.getRuntime().halt(3);
                break;
            case 3:
                System.exit(4);
                break;
            case 4:
                new ProcessBuilder("sleep", "20").inheritIO().start();
                break;
            case 5:
                for (int at = 0; at < 20; at++) {
                    new Thread(() -> {
                        try {
                            Thread.sleep(20_000);
                        } catch (InterruptedException error) {
                            return;
                        }
                    }).start();
                }
                break;
            case 6:
                System.out.println("noise ".repeat(10_000));
                break;
            case 7:
                java.util.Arrays.fill(values, Double.NaN);
                break;
            case 9:
                values = new double[rows + 1];
                break;
            case 10:
                throw new IllegalStateException("secret of the model");
            case 11:
                List<long[]> kept = new ArrayList<>();
                while (true) {
                    kept.add(new long[1 << 20]);
                }
            default:
                break;
        }
        return Batch.of("value", Tensor.ofDoubles(values));
    }
}
"""


def write_python(folder: Path) -> None:
    """Write it for the Python worker."""
    folder.mkdir(parents=True)
    (folder / "moody_model.py").write_text(PYTHON)
    manifest = {
        "runtime": "python",
        "artifact": "moody_model.py",
        "options": {"class": "moody_model:Moody"},
        "signature": versions.signature(),
    }
    (folder / "model.yaml").write_text(json.dumps(manifest))


def write_in_process(folder: Path) -> None:
    """Write it as a pickled scikit-learn estimator, which runs inside the gateway process."""
    import cloudpickle  # noqa: PLC0415  only checks that write models pay for it
    import numpy as np  # noqa: PLC0415
    from sklearn.base import BaseEstimator, RegressorMixin  # noqa: PLC0415

    scope: dict[str, object] = {"__name__": "__main__"}
    exec(compile(PYTHON, "moody_model.py", "exec"), scope)
    act = scope["act"]

    class Moody(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
        """The estimator."""

        def fit(self, _x: object, _y: object = None) -> "Moody":
            """Take note of the number of columns."""
            self.n_features_in_ = 1
            return self

        def predict(self, x: object) -> object:
            """Do what the first row asks."""
            rows = np.asarray(x)
            return act(int(rows[0, 0]) if len(rows) else 0, len(rows))  # type: ignore[operator]

    Moody.__module__ = "__main__"  # cloudpickle then carries the class itself
    folder.mkdir(parents=True)
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(Moody().fit(None)))


def write_spi(folder: Path) -> None:
    """Write it as a jar for the JVM worker, with little memory."""
    folder.mkdir(parents=True)
    versions.build_jar(folder / "model.jar", {"MoodyModel": JAVA})
    options = {"kind": "spi", "jars": ["model.jar"], "heap": "64m"}
    (folder / "model.yaml").write_text(json.dumps({"runtime": "jvm", "artifact": ".", "options": options}))
