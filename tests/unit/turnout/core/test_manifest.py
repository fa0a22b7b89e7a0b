"""Rules of `model.yaml` that its types alone do not say."""

import msgspec
import pytest

from turnout.core.document import DocumentError, parse
from turnout.core.manifest import OPTIONS, Batching, JvmOptions, Manifest, PythonOptions, Runtime


def decode(text: str) -> Manifest:
    """Return a decoded `model.yaml`."""
    return parse(text, "model.yaml").decode(Manifest)


def test_an_empty_manifest_has_the_defaults():
    """Everything may be left out."""
    manifest = decode("")
    assert manifest.runtime is None
    assert manifest.batching is True
    assert Batching().max_rows == 64
    assert manifest.limits.in_flight == 64


def test_batching_may_be_switched_off():
    """`batching: false` is kept as such."""
    assert decode("batching: false").batching is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("signature: {inputs: [{name: x, datatype: FP32, shape: [-2]}]}", "shape [-2] is none"),
        ("signature: {outputs: [{name: '', datatype: FP32, shape: [1]}]}", "an output has no name"),
        (
            "signature: {inputs: [{name: x, datatype: FP32, shape: []}, {name: x, datatype: FP32, shape: []}]}",
            "input 'x' appears twice",
        ),
        ("metrics: {value: [0.5, 0.1]}", "each greater than the one before"),
        ("metrics: {value: []}", "bucket bounds are finite"),
        ("metrics: {value: [.inf]}", "metrics.value[0]: expected a number, got text"),
        ("limits: {in_flight: 0}", "expected a whole number >= 1"),
        ("batching: {max_rows: 0}", "expected a whole number >= 1"),
        ("rename: {inputs: {a: c, b: c}}", "inputs: 'a' and 'b' would both be called 'c'"),
        ("rename: {outputs: {a: ''}}", "outputs: 'a' gets no name"),
    ],
)
def test_values_that_make_no_sense_are_refused(text, reason):
    """Shapes, names, bucket bounds and limits are checked as they are read."""
    with pytest.raises(DocumentError, match=r"^model\.yaml:1: ") as caught:
        decode(text)
    assert reason in caught.value.reason


def test_names_may_be_swapped():
    """Renaming is one step for all tensors: two may change names."""
    assert decode("rename: {inputs: {a: b, b: a}}").rename.inputs == {"a": "b", "b": "a"}


def test_spare_workers_are_refused_for_now():
    """`standby` may say that there is none; asked for one, it says that this release has none."""
    assert msgspec.convert({"standby": 0}, JvmOptions).standby == 0
    with pytest.raises(msgspec.ValidationError, match="standby: spare workers are not in this release; write 0"):
        msgspec.convert({"standby": 1}, JvmOptions)


def test_every_runtime_says_which_options_it_takes():
    """No runtime is left out of the table of options."""
    assert set(OPTIONS) == set(Runtime)


def test_python_options_use_the_word_class():
    """The key that is a keyword of Python is still written `class`."""
    assert msgspec.convert({"class": "my.module:Model"}, PythonOptions).class_name == "my.module:Model"
