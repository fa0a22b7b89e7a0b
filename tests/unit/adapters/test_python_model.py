"""A user's class inside the Python worker, without the process around it."""

import subprocess
import sys

import numpy as np
import pytest

from adapters.worker.frames import Part, join_elements, table, text
from adapters.worker.python_model import Refused, Served


class Given:
    """The class under test; its methods are set by the tests."""

    signature = {"inputs": [], "outputs": []}  # noqa: RUF012

    def predict(self, inputs):
        """Answer nothing."""
        return {}


@pytest.fixture
def given(monkeypatch):
    """Make `given_model:Given` importable."""
    monkeypatch.setitem(sys.modules, "given_model", sys.modules[__name__])
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Given


def served(folder, **parts):
    """Load the class."""
    fixed = [
        text("directory", str(folder)),
        text("artifact", "weights"),
        table("options", [["class", "given_model:Given"]], 2),
    ]
    return Served({part.name: part for part in fixed} | parts)


def outputs(monkeypatch, name, datatype, value):
    """Have the class answer one value."""
    monkeypatch.setattr(
        Given, "signature", {"inputs": [], "outputs": [{"name": name, "datatype": datatype, "shape": [-1]}]}
    )
    monkeypatch.setattr(Given, "predict", lambda _self, _inputs: {name: value})


@pytest.mark.parametrize(
    ("datatype", "value", "raw"),
    [
        ("FP32", np.array([1.5], np.float32), np.array([1.5], "<f4").tobytes()),
        ("FP32", np.array([1.5], ">f4"), np.array([1.5], "<f4").tobytes()),
        ("INT64", np.arange(6).reshape(2, 3).T, np.array([0, 3, 1, 4, 2, 5]).tobytes()),
        ("BOOL", [True, False], b"\x01\x00"),
        ("BYTES", ["ü", b"a\0", None], join_elements(["ü".encode(), b"a\0", None])),
        ("BYTES", np.array(["x", "yz"]), join_elements([b"x", b"yz"])),
    ],
)
def test_answers_travel_as_they_are(given, monkeypatch, tmp_path, datatype, value, raw):
    """Arrays of any layout, lists and texts are written in the raw form of their datatype."""
    outputs(monkeypatch, "y", datatype, value)
    (part,) = served(tmp_path).predict([])
    assert (part.datatype, bytes(part.data)) == (datatype, raw)


@pytest.mark.parametrize(
    ("datatype", "value", "reason"),
    [
        ("FP32", np.array([1.5]), "output 'y' must be FP32, the model answered float64"),
        ("INT64", np.array([1 + 2j]), "must be INT64, the model answered complex128"),
        ("BYTES", [1.5], "output 'y' must hold bytes or text"),
    ],
)
def test_another_datatype_is_the_models_fault(given, monkeypatch, tmp_path, datatype, value, reason):
    """Nothing is cast silently."""
    outputs(monkeypatch, "y", datatype, value)
    with pytest.raises(Refused, match=reason) as caught:
        served(tmp_path).predict([])
    assert caught.value.code == "model_fault"


@pytest.mark.parametrize("answer", [None, [1], {"other": 1}])
def test_an_answer_without_its_outputs_is_the_models_fault(given, monkeypatch, tmp_path, answer):
    """A model must answer a dict with the outputs of its signature."""
    outputs(monkeypatch, "y", "FP64", 0)
    monkeypatch.setattr(Given, "predict", lambda _self, _inputs: answer)
    with pytest.raises(Refused, match=r"dict of arrays|did not answer output 'y'"):
        served(tmp_path).predict([])


def test_an_answer_that_numpy_cannot_read_is_the_models_fault(given, monkeypatch, tmp_path):
    """A torch tensor that keeps gradients raises when it is made an array; that must not end the worker."""

    class Guarded:
        def __array__(self, *_arguments, **_options):
            raise RuntimeError("call detach first")

    outputs(monkeypatch, "y", "FP64", Guarded())
    with pytest.raises(Refused, match="its answer is no array: RuntimeError: call detach first") as caught:
        served(tmp_path).predict([])
    assert caught.value.code == "model_fault"


def test_inputs_are_arrays_of_its_own(given, monkeypatch, tmp_path):
    """The model may write into its inputs; names with a colon are kept from it."""
    seen = {}
    monkeypatch.setattr(Given, "predict", lambda _self, inputs: seen.update(inputs) or {})
    data = memoryview(b"!" + np.array([1.0, 2.0]).tobytes())[1:]
    served(tmp_path).predict([Part("x", "FP64", (2,), data), Part(":traceparent", "BYTES", (0,), b"")])
    assert list(seen) == ["x"]
    assert seen["x"].flags.writeable
    assert seen["x"].flags.aligned


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ({"outputs": []}, "neither the class nor model.yaml tells the signature's inputs"),
        (
            {"inputs": [{"name": "x", "datatype": "FP8", "shape": [-1]}], "outputs": []},
            "tensor 'x': unknown datatype FP8",
        ),
    ],
)
def test_a_signature_that_is_none_is_refused(given, monkeypatch, tmp_path, signature, reason):
    """A half that nobody tells, and an unknown datatype, fail the load."""
    monkeypatch.setattr(Given, "signature", signature)
    with pytest.raises(Refused, match=reason) as caught:
        served(tmp_path)
    assert caught.value.code == "load_failed"


def test_the_worker_needs_numpy_only():
    """The worker is importable where nothing but numpy is installed; BF16 is then refused by name."""
    code = """
import sys
for name in ("ml_dtypes", "msgspec", "turnout"):
    sys.modules[name] = None
from adapters.worker import python_worker
from adapters.worker.python_model import Refused, Spec
try:
    Spec("x", "BF16", (-1,), False)
except Refused as refused:
    print(refused.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "tensor 'x' is BF16: install ml_dtypes beside numpy"
