"""ONNX Runtime as an engine: what is refused at load, and the tensors that need care."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from adapters.interface import LoadFailed
from adapters.onnx_file import unranked
from adapters.onnx_runtime import OnnxAdapter
from tests.contract.adapter_rows import bf16, onnx_graph, pairs_of
from tests.contract.worker_models import source
from turnout.core.errors import InvalidInput
from turnout.core.manifest import DeclaredSignature
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Datatype, Tensor


def saved(folder, nodes, inputs, outputs, initializers=()):
    """Save a graph and return its path."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
    model.ir_version = 8
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


async def load(folder, data=None, declared=None, **options):
    """Load `model.onnx` of a folder, written from `data` if given."""
    if data is not None:
        (folder / "model.onnx").write_bytes(data)
    model = source(folder, Path("model.onnx"), options)
    if declared is not None:
        fields = {name: getattr(model, name) for name in model.__struct_fields__}
        model = type(model)(**{**fields, "declared": declared})
    return await OnnxAdapter().load(model)


def value(name, kind=TensorProto.FLOAT, shape=("n",)):
    """Return a graph's input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


async def test_shapes_are_told(tmp_path):
    """Fixed axes are told as they are, named and open ones as -1, a scalar as an empty shape."""
    pairs = pairs_of(Datatype.FP32)
    model = await load(tmp_path, onnx_graph(pairs, ("batch", 3, None)))
    assert model.signature.inputs == (TensorSpec("in_fp32", Datatype.FP32, (-1, 3, -1)),)
    model = await load(tmp_path, onnx_graph(pairs, ()))
    assert model.signature.inputs == (TensorSpec("in_fp32", Datatype.FP32, ()),)
    assert model.predict({"in_fp32": Tensor.of(np.array(2.5, np.float32))}, ("out_fp32",))["out_fp32"].shape == ()
    assert model.properties["engine"].startswith("onnxruntime ")
    model.close()


async def test_only_wanted_outputs_are_fetched(tmp_path):
    """What is not wanted is not answered, in whatever order the rest is asked."""
    model = await load(tmp_path, onnx_graph(pairs_of(Datatype.FP32, Datatype.INT64, Datatype.BYTES)))
    inputs = {
        "in_fp32": Tensor.of(np.array([1.5], np.float32)),
        "in_int64": Tensor.of(np.array([7])),
        "in_bytes": Tensor.of(np.array(["a"], object)),
    }
    answer = model.predict(inputs, ("out_bytes", "out_fp32"))
    assert {name: tensor.array.tolist() for name, tensor in answer.items()} == {"out_bytes": [b"a"], "out_fp32": [1.5]}


async def test_bf16_and_others_mix(tmp_path):
    """BF16 goes in beside other numbers, and comes out also with no rows."""
    model = await load(tmp_path, onnx_graph(pairs_of(Datatype.BF16, Datatype.INT64)))
    for rows in ([1.5, -0.0], []):
        inputs = {"in_bf16": Tensor.of(bf16(rows)), "in_int64": Tensor.of(np.arange(len(rows)))}
        answer = model.predict(inputs, ("out_int64", "out_bf16"))
        assert answer["out_bf16"].datatype is Datatype.BF16
        assert answer["out_bf16"].raw() == bf16(rows).tobytes()
        assert answer["out_int64"].array.tolist() == list(range(len(rows)))


async def test_bf16_goes_in_beside_text(tmp_path):
    """BF16 inputs beside BYTES are served where no BF16 comes out."""
    saved(
        tmp_path,
        [helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT), helper.make_node("Identity", ["s"], ["t"])],
        [value("b", TensorProto.BFLOAT16), value("s", TensorProto.STRING)],
        [value("f"), value("t", TensorProto.STRING)],
    )
    model = await load(tmp_path)
    inputs = {"b": Tensor.of(bf16([1.5])), "s": Tensor.of(np.array(["a\0"], object))}
    answer = model.predict(inputs, ("f", "t"))
    assert (answer["f"].array.tolist(), answer["t"].array.tolist()) == ([1.5], [b"a\0"])


async def test_bf16_out_of_text_is_refused(tmp_path):
    """A graph with BYTES in and BF16 out is refused, naming both."""
    with pytest.raises(LoadFailed, match="'out_bf16' is BF16 beside BYTES input 'in_bytes'"):
        await load(tmp_path, onnx_graph(pairs_of(Datatype.BF16, Datatype.BYTES)))


async def test_missing_text_is_refused(tmp_path):
    """None in BYTES is InvalidInput, should it get this far."""
    model = await load(tmp_path, onnx_graph(pairs_of(Datatype.BYTES)))
    with pytest.raises(InvalidInput, match="element 1 is null"):
        model.predict({"in_bytes": Tensor.of(np.array([b"a", None], object))}, ("out_bytes",))


async def test_a_zipmap_is_refused_with_the_fix(tmp_path):
    """A list of dicts, as skl2onnx makes by default, is refused by name with the way to leave it out."""
    probabilities = helper.make_tensor_value_info("p", TensorProto.FLOAT, ("n", 2))
    zipmap = helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    saved(tmp_path, [zipmap], [probabilities], [helper.make_value_info("maps", kind)])
    with pytest.raises(LoadFailed, match=r"output 'maps' is seq\(map.*'zipmap': False"):
        await load(tmp_path)


async def test_a_datatype_outside_the_protocol_is_refused(tmp_path):
    """An input that no datatype of the protocol holds is refused by name."""
    saved(
        tmp_path,
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [value("x", TensorProto.FLOAT8E4M3FN)],
        [value("y")],
    )
    with pytest.raises(LoadFailed, match=r"input 'x' is tensor\(float8e4m3fn\)|model.onnx: "):
        await load(tmp_path)


async def test_a_tensor_without_rank_wants_a_declaration(tmp_path):
    """An output of unknown rank is refused with the fix, and served where it is declared; a scalar is none."""
    path = saved(
        tmp_path,
        [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("ReduceSum", ["x"], ["z"], keepdims=0)],
        [value("x", shape=("a", "b")), value("s", TensorProto.INT64, ("r",))],
        [value("y", shape=None), value("z", shape=())],
    )
    assert unranked(path) == {"y"}
    with pytest.raises(LoadFailed, match=r"output 'y' has no rank in the file; declare it under signature\.outputs"):
        await load(tmp_path)
    declared = DeclaredSignature(outputs=(TensorSpec("y", Datatype.FP32, (-1, 4)),))
    model = await load(tmp_path, declared=declared)
    assert [spec.shape for spec in model.signature.outputs] == [(-1, 4), ()]


@pytest.mark.parametrize(
    "data", [b"", b"garbage", onnx_graph(pairs_of(Datatype.FP32))[:-9], bytes(64), b"\x3a\xff\xff\xff\xff\x7f"]
)
async def test_broken_files_are_refused_in_one_line(tmp_path, data):
    """Whatever is no ONNX file is refused in one line that names it and no folder."""
    with pytest.raises(LoadFailed, match=r"^model\.onnx: ") as caught:
        await load(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


async def test_a_missing_file_is_refused(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(LoadFailed, match=r"^model\.onnx: "):
        await load(tmp_path)


async def test_weights_beside_the_model_are_read(tmp_path):
    """External data files are found beside the model; a missing one is named."""
    weights = numpy_helper.from_array(np.arange(1024, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value("x", shape=(1024,))],
        [value("y", shape=(1024,))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=16)
    loaded = await load(tmp_path)
    answer = loaded.predict({"x": Tensor.of(np.ones(1024, np.float32))}, ("y",))
    assert answer["y"].array.tolist() == (np.arange(1024) + 1).tolist()
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadFailed, match=r"weights\.bin"):
        await load(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"providers": ["WarpDrive"]}, "provider 'WarpDrive' is none of .*CPUExecutionProvider"),
        ({"threads": 0}, "options: .*>= 1"),
        ({"thread": 2}, "options: .*unknown field `thread`"),
    ],
)
async def test_options_are_checked(tmp_path, options, reason):
    """Unknown options and providers are refused by name."""
    with pytest.raises(LoadFailed, match=reason):
        await load(tmp_path, onnx_graph(pairs_of(Datatype.FP32)), **options)


async def test_options_are_taken(tmp_path):
    """Providers and threads are handed on."""
    model = await load(tmp_path, onnx_graph(pairs_of(Datatype.FP32)), providers=["CPUExecutionProvider"], threads=2)
    assert model.properties["providers"] == "CPUExecutionProvider"


def test_nothing_is_printed(tmp_path):
    """Loading, failing to load and failing to run print nothing."""
    saved(
        tmp_path,
        [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("Identity", ["x"], ["unused"])],
        [value("x"), value("s", TensorProto.INT64, (1,))],
        [value("y", shape=("m",))],
    )
    code = """
import asyncio, sys
from pathlib import Path
import numpy as np
from adapters.onnx_runtime import OnnxAdapter
from tests.contract.worker_models import source
from turnout.core.tensor import Tensor

folder = Path(sys.argv[1])
model = asyncio.run(OnnxAdapter().load(source(folder, Path("model.onnx"), {})))
try:
    model.predict({"x": Tensor.of(np.zeros(2, np.float32)), "s": Tensor.of(np.array([7]))}, ("y",))
except Exception:
    pass
(folder / "model.onnx").write_bytes(b"x")
try:
    asyncio.run(OnnxAdapter().load(source(folder, Path("model.onnx"), {})))
except Exception:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
