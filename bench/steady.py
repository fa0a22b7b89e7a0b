"""An ONNX model whose call takes the same processor time for 1 row and for 64: what batching is measured on.

It takes `x` FP64 [-1] and answers `value` = 0.3 x + 1. Beside it a chain of products of matrices is computed, as long
as the wanted time takes on this machine, of which nothing is seen in the answer.
"""

import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import versions
from bench.lines import HEIGHT, SLOPE

_SIDE: Final = 128
_TRIAL_PRODUCTS: Final = 20
_TRIAL_CALLS: Final = 100


def write(folder: Path, call_s: float) -> None:
    """Write `folder/model.onnx`, a call of which takes about `call_s` seconds of processor time."""
    folder.mkdir(parents=True)
    trial = processor_s(_graph(_TRIAL_PRODUCTS), 1) - processor_s(_graph(0), 1)
    products = max(1, round(_TRIAL_PRODUCTS * call_s / trial))
    (folder / "model.onnx").write_bytes(_graph(products))


def processor_s(model: bytes, rows: int) -> float:
    """Return the processor time of one call with so many rows: the median of many."""
    import onnxruntime  # noqa: PLC0415  only checks that write models pay for it

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    x = {versions.INPUT: np.arange(rows, dtype=np.float64)}
    taken: list[float] = []
    for _ in range(_TRIAL_CALLS):
        before = time.thread_time()
        session.run(None, x)
        taken.append(time.thread_time() - before)
    return statistics.median(taken)


def _graph(products: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(_SIDE, _SIDE)))[0].astype(np.float32)
    nodes: list[Any] = [
        helper.make_node("Mul", [versions.INPUT, "slope"], ["rise"]),
        helper.make_node("ReduceSum", [versions.INPUT], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["narrow"], to=TensorProto.FLOAT),
        # It depends on the input, or the runtime would compute it once and for all.
        helper.make_node("Add", ["turned", "narrow"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"m{at}", "turned"], [f"m{at + 1}"]) for at in range(products)]
    nodes += [
        helper.make_node("ReduceMax", [f"m{products}"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["wide", "nothing"], ["unseen"]),
        helper.make_node("Add", ["rise", "unseen"], ["seen"]),
        helper.make_node("Add", ["seen", "height"], [versions.OUTPUT]),
    ]
    numbers = {"slope": SLOPE, "height": HEIGHT, "nothing": 0.0}
    graph = helper.make_graph(
        nodes,
        "steady",
        [helper.make_tensor_value_info(versions.INPUT, TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info(versions.OUTPUT, TensorProto.DOUBLE, ["n"])],
        [
            numpy_helper.from_array(turned, "turned"),
            *(helper.make_tensor(name, TensorProto.DOUBLE, [], [value]) for name, value in numbers.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model.SerializeToString()
