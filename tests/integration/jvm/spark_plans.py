"""What is asked of each saved pipeline; `python -m tests.integration.jvm.spark_plans OUT` records the answers in OUT.

It is a program of its own so that it can run beside the tests that do not need it.
"""

import os
import pickle
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from adapters.worker.model import WorkerModel
from tests import jvm_builds
from tests.gathering import gathered
from tests.integration.jvm.frames_by_hand import PREDICT, as_text
from tests.integration.jvm.spark_runs import QUICK_START, Plan, record, row
from turnout.core.errors import InvalidInput
from turnout.core.tensor import Datatype, Tensor

TRAINING = Path(__file__).with_name("train_pipelines.py")
FLIGHT_INPUTS = [("carrier", "BYTES", "-1"), ("dep_delay", "FP64", "-1"), ("distance", "FP64", "-1")]
PASSED = {
    "flag": (Datatype.BOOL, [True, False, True, False]),
    "i8": (Datatype.INT8, [-128, 127, 0, -1]),
    "i16": (Datatype.INT16, [-(2**15), 2**15 - 1, 0, -1]),
    "i32": (Datatype.INT32, [-(2**31), 2**31 - 1, 0, -1]),
    "i64": (Datatype.INT64, [-(2**63), 2**63 - 1, 2**53 + 1, -1]),
    "u8": (Datatype.UINT8, [0, 255, 128, 1]),
    "u16": (Datatype.UINT16, [0, 2**16 - 1, 2**15, 1]),
    "u32": (Datatype.UINT32, [0, 2**32 - 1, 2**31, 1]),
    "f32": (Datatype.FP32, [-0.0, np.nan, np.inf, 0.1]),
    "f64": (Datatype.FP64, [-0.0, np.nan, -np.inf, 1e-320]),
    "s": (Datatype.BYTES, [b"a\x00b", "\U0001f600\u00e9".encode(), b"x" * (1 << 20), None]),
    "b": (Datatype.BYTES, [b"\xff\x00\xfe", b"", None, b"\x80"]),
}


def passed(name):
    """Return the values of a column that a pipeline passes on, as a tensor."""
    datatype, values = PASSED[name]
    elements = np.empty(len(values), dtype=datatype.dtype)
    elements[:] = values
    return Tensor(datatype, elements)


async def ask_strange_values(worker, _):
    """Ask for the row-wise echo of every datatype, and for text that is none."""
    rows = {name: passed(name) for name in PASSED}
    answer = await worker.client.ask(PREDICT, rows)
    broken = np.array([b"fine", b"\xff", b"fine", b"fine"], dtype=object)
    return answer, await worker.client.ask(PREDICT, rows | {"s": Tensor.of(broken)})


async def ask_unseen(worker, rows):
    """Ask for a known carrier, one never seen, and a known one."""
    some = row(rows, 0, 3) | {"distance": Tensor.of(np.array([501.0, 502.0, 503.0]))}
    known = "B6"
    unseen = some | {"carrier": Tensor.of(as_text([known, "ZZ", known])), "dep_delay": Tensor.of(np.zeros(3))}
    missing = some | {
        "carrier": Tensor.of(as_text([known, known, known])),
        "dep_delay": Tensor.of(np.array([1.0, 2.0, np.nan])),
    }
    return [await worker.client.ask(PREDICT, rows) for rows in (unseen, missing, row(missing, 0, 2))]


async def ask_unseen_gathered(worker, rows):
    """Ask as above; then row by row at once, as a gateway gathers them, an unseen carrier in their midst."""
    model = await WorkerModel.connect(worker.source)
    requests = [row(rows, at) for at in range(16)]
    requests[7] = requests[7] | {"carrier": Tensor.of(as_text(["ZZ"]))}
    with tempfile.TemporaryDirectory() as folder:
        ends, calls = await gathered(model, requests, Path(folder))
    await model.close()
    told = [str(end) if isinstance(end, InvalidInput) else end["prediction"].array.tolist() for end in ends]
    return await ask_unseen(worker, rows), told, calls


async def ask_with_label(worker, rows):
    """Ask with the label of the training beside the inputs, and with an input that is not there."""
    labelled = row(rows, 0, 4) | {"outcome": Tensor.of(as_text(["late", "on time", None, "??"]))}
    short = {name: tensor for name, tensor in row(rows, 0, 4).items() if name != "origin"}
    nothing = row(rows, 0, 0)
    return [await worker.client.ask(PREDICT, asked) for asked in (labelled, short, nothing)]


async def ask_as_one(worker, rows):
    """Ask for all rows in one request."""
    return await worker.client.ask(PREDICT, rows)


FOLDING = {
    "cancer_lr": Plan(options={}),
    "cancer_gbt": Plan(options={"cpus": 2} | QUICK_START),
    "flights_rf": Plan(
        outputs=[("prediction", "FP64", "-1"), ("probability", "FP64", "-1,2"), ("answer", "BYTES", "-1")],
        probe=ask_with_label,
    ),
    "text_hashing": Plan(),
    "text_counts": Plan(),
    "sql_misc": Plan(options={}, trusted=False),
    "skipping": Plan(inputs=FLIGHT_INPUTS, probe=ask_unseen_gathered),
    "keeping": Plan(inputs=FLIGHT_INPUTS),
    "throwing": Plan(probe=ask_unseen),
    "clusters": Plan(inputs=[("pair", "FP64", "-1,2"), ("f2", "FP64", "-1")]),
}
SLOW = {
    "aggregate": (Plan(probe=ask_as_one), "window is not row-wise"),
    "random": (Plan(probe=ask_as_one), "rand() is nondeterministic"),
    "today": (Plan(), "current_date() changes from call to call"),
}
PASSING = Plan(
    inputs=[(name, str(datatype), "-1") for name, (datatype, _) in PASSED.items()],
    outputs=[(f"{name}_out", str(datatype), "-1") for name, (datatype, _) in PASSED.items()],
    options={"binary": ["b"]} | QUICK_START,
    probe=ask_strange_values,
)
PLANS = FOLDING | {name: plan for name, (plan, _) in SLOW.items()} | {"passing": PASSING}


def main(out):
    """Run every pipeline once and write what it said. Ends, with its workers, when its standard input does."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    jvm_builds.spi_classes()
    pipelines = jvm_builds.spark_pipelines(TRAINING)
    with tempfile.TemporaryDirectory() as folder:
        runs = record(pipelines, Path(folder), jvm_builds.CACHE, PLANS)
    with Path(out).open("wb") as file:
        pickle.dump(runs, file)


def _end_with_stdin():
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter wants at its end
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
