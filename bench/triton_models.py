"""Writes the models that Triton's client examples ask for: same names, tensors, datatypes and answers, as small files.

Shapes leave axis 0 open, as Triton's own models do. Nothing of Triton's repository is copied.
"""

import json
import struct
import zlib
from pathlib import Path
from typing import Any, Final

ROWS: Final = "n"
WIDTH: Final = 16
PICTURE: Final = (32, 24)
# Without the last one there are seven: what the examples of repository control count over HTTP; over gRPC eight.
NAMES: Final = (
    "simple",
    "simple_int8",
    "simple_string",
    "simple_identity",
    "custom_identity_int32",
    "densenet_onnx",
    "preprocess_inception_ensemble",
    "image",
)
PYTHON_MODEL: Final = '''"""Models for Triton's client examples whose inputs are bytes that need not be text."""

import numpy as np


class Identity:
    """Hands its input back."""

    def predict(self, inputs):
        """Return OUTPUT0 = INPUT0."""
        return {"OUTPUT0": inputs["INPUT0"]}


class Histogram:
    """Counts how often each byte is in a picture's file."""

    def predict(self, inputs):
        """Return 256 counts a file."""
        counts = [np.bincount(np.frombuffer(file, np.uint8), minlength=256) for file in inputs["INPUT"].reshape(-1)]
        return {"OUTPUT": np.array(counts, np.float32).reshape(-1, 256)}
'''


def write_all(folder: Path) -> None:
    """Write every model under its name."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only checks that write models pay for it

    sums = [("Add", "OUTPUT0"), ("Sub", "OUTPUT1")]
    inputs, outputs = ("INPUT0", "INPUT1"), ("OUTPUT0", "OUTPUT1")
    plain = [helper.make_node(kind, inputs, [output]) for kind, output in sums]
    _write_onnx(folder / "simple", plain, _same(TensorProto.INT32, inputs), _same(TensorProto.INT32, outputs))
    for name, datatype in (("simple_int8", TensorProto.INT8), ("simple_string", TensorProto.STRING)):
        nodes = [helper.make_node("Cast", [tensor], [f"{tensor}_32"], to=TensorProto.INT32) for tensor in inputs]
        for kind, output in sums:
            nodes.append(helper.make_node(kind, [f"{tensor}_32" for tensor in inputs], [f"{output}_32"]))
            nodes.append(helper.make_node("Cast", [f"{output}_32"], [output], to=datatype))
        _write_onnx(folder / name, nodes, _same(datatype, inputs), _same(datatype, outputs))
    identity = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    _write_onnx(
        folder / "custom_identity_int32",
        identity,
        _same(TensorProto.INT32, inputs[:1]),
        _same(TensorProto.INT32, outputs[:1]),
    )
    _write_pictures(folder)
    _write_python(folder / "simple_identity", "Identity", ("INPUT0", "BYTES", [-1, WIDTH]), ("OUTPUT0", "BYTES"))
    classified = folder / "preprocess_inception_ensemble"
    _write_python(classified, "Histogram", ("INPUT", "BYTES", [-1, 1]), ("OUTPUT", "FP32", [-1, 256]))


def write_picture(path: Path) -> None:
    """Write a small colourful PNG."""
    width, height = PICTURE
    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x * 8, y * 10, (x ^ y) * 7 % 256))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    written = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + written)


def _write_pictures(folder: Path) -> None:
    from onnx import TensorProto, helper  # noqa: PLC0415  as above

    mean = [helper.make_node("ReduceMean", ["data_0"], ["fc6_1"], axes=[1, 2], keepdims=0)]
    shapes: tuple[list[int | str], list[int | str]] = ([3, 224, 224], [3])
    _write_onnx(
        folder / "densenet_onnx",
        mean,
        {"data_0": (TensorProto.FLOAT, shapes[0])},
        {"fc6_1": (TensorProto.FLOAT, shapes[1])},
    )
    colours = [helper.make_node("ReduceMean", ["picture"], ["colours"], axes=[2, 3], keepdims=0)]
    _write_onnx(
        folder / "image",
        colours,
        {"picture": (TensorProto.FLOAT, [ROWS, 3, PICTURE[1], PICTURE[0]])},
        {"colours": (TensorProto.FLOAT, [ROWS, 3])},
    )


def _same(datatype: int, names: tuple[str, ...]) -> dict[str, tuple[int, list[int | str]]]:
    return {name: (datatype, [ROWS, WIDTH]) for name in names}


def _write_onnx(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
) -> None:
    from onnx import helper  # noqa: PLC0415  as above

    taken, answered = (
        [helper.make_tensor_value_info(name, datatype, shape) for name, (datatype, shape) in tensors.items()]
        for tensors in (inputs, outputs)
    )
    model = helper.make_model(
        helper.make_graph(nodes, folder.name, taken, answered), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    version = folder / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model.SerializeToString())


def _write_python(
    folder: Path, kind: str, sent: tuple[str, str, list[int]], answered: tuple[str, str, list[int]] | tuple[str, str]
) -> None:
    output = answered if len(answered) == 3 else (*answered, sent[2])
    signature = {
        side: [{"name": name, "datatype": datatype, "shape": shape}]
        for side, (name, datatype, shape) in (("inputs", sent), ("outputs", output))
    }
    manifest = {
        "runtime": "python",
        "artifact": "triton_model.py",
        "options": {"class": f"triton_model:{kind}"},
        "signature": signature,
    }
    version = folder / "1"
    version.mkdir(parents=True)
    (version / "triton_model.py").write_text(PYTHON_MODEL)
    (version / "model.yaml").write_text(json.dumps(manifest, indent=2) + "\n")
