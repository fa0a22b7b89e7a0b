"""Writes models that misbehave on demand: the number in `x` says how, in each runtime that runs a user's code.

All take `x` FP64 [-1] and answer `value` FP64 [-1]. Ways are numbers that no warm-up asks with; others are answered as
they should be.
"""

import json
from pathlib import Path
from typing import Final

from bench import versions

FINE: Final = 0
BLOCK: Final = 7001
EXIT_NOW: Final = 7002
EXIT: Final = 7003
FORK: Final = 7004
THREADS: Final = 7005
PRINT: Final = 7006
NAN: Final = 7007
WRONG_SHAPE: Final = 7008
TOO_MANY_ROWS: Final = 7009
RAISE: Final = 7010
MEMORY: Final = 7011

# A child of a fork that lives on holds the parent's sockets open: nobody may wait for it.
PYTHON: Final = '''"""A model that does what `x` asks for."""

import os
import sys
import threading
import time

import numpy as np


def act(x):
    """Misbehave as the largest number says, for all rows that come with it; return the answer."""
    what, rows = int(x.max(initial=0)), len(x)
    value = np.zeros(rows)
    if what == 7001:
        while True:
            time.sleep(3600)
    if what == 7002:
        os._exit(3)
    if what == 7003:
        sys.exit(4)
    if what == 7004:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    if what == 7005:
        for _ in range(20):
            threading.Thread(target=time.sleep, args=(20,), daemon=False).start()
    if what == 7006:
        print("noise " * 10_000)
        os.write(1, b"\\x00\\xff\\x10 no text, and no end of line")
    if what == 7007:
        value[x.reshape(rows, -1)[:, 0] == what] = np.nan
    if what == 7008:
        return np.zeros((rows, 2))
    if what == 7009:
        return np.zeros(rows + 1)
    if what == 7010:
        raise RuntimeError("secret of the model")
    return value


class Moody:
    """The class of the Python worker."""

    def predict(self, inputs):
        """Do what the rows ask."""
        return {"value": act(inputs["x"])}
'''
JAVA: Final = """import dev.turnout.spi.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Does what the largest number says. */
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
        double[] x = inputs.get("x").doubles();
        switch ((int) java.util.Arrays.stream(x).max().orElse(0)) {
            case 7001:
                Thread.sleep(Long.MAX_VALUE);
                break;
            case 7002:
                Runtime.getRuntime().halt(3);
                break;
            case 7003:
                System.exit(4);
                break;
            case 7004:
                new ProcessBuilder("sleep", "20").inheritIO().start();
                break;
            case 7005:
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
            case 7006:
                System.out.println("noise ".repeat(10_000));
                break;
            case 7007:
                for (int at = 0; at < rows; at++) {
                    values[at] = x[at] == 7007 ? Double.NaN : 0;
                }
                break;
            case 7009:
                values = new double[rows + 1];
                break;
            case 7010:
                throw new IllegalStateException("secret of the model");
            case 7011:
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


def write_python(folder: Path, *axes: int) -> None:
    """Write it for the Python worker; `axes` are those of `x` beside its rows."""
    folder.mkdir(parents=True)
    (folder / "moody_model.py").write_text(PYTHON)
    manifest = {
        "runtime": "python",
        "artifact": "moody_model.py",
        "options": {"class": "moody_model:Moody"},
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, *axes]}],
            "outputs": versions.signature()["outputs"],
        },
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
            """Do what the rows ask."""
            return act(np.asarray(x))  # type: ignore[operator]

    Moody.__module__ = "__main__"  # cloudpickle then carries the class itself
    folder.mkdir(parents=True)
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(Moody().fit(None)))


def write_spi(folder: Path) -> None:
    """Write it as a jar for the JVM worker, with little memory."""
    folder.mkdir(parents=True)
    versions.build_jar(folder / "model.jar", {"MoodyModel": JAVA})
    options = {"kind": "spi", "jars": ["model.jar"], "heap": "64m"}
    (folder / "model.yaml").write_text(json.dumps({"runtime": "jvm", "artifact": ".", "options": options}))
