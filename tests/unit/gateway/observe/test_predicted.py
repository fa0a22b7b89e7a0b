"""Predicted classes and values: bounded in number and size, agreed between processes."""

import fcntl

import numpy as np
import pytest

from gateway.observe import metrics as metrics_module
from gateway.observe.class_ledger import ClassLedger, shares
from gateway.observe.exposition import merged
from gateway.observe.metrics import Metrics
from gateway.observe.predicted import bounded, class_name, is_class, is_value
from tests.full_disk import files_end_at
from turnout.core.ids import VersionRef
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Datatype, Tensor

REF = VersionRef("m", 1)
LABEL = TensorSpec("label", Datatype.BYTES, (-1,))
SCORE = TensorSpec("score", Datatype.FP64, (-1,))


def samples(directory, name):
    """Return a family's samples by the label that tells them apart."""
    return {
        sample.labels.get("class") or sample.labels.get("le"): sample.value
        for family in merged(directory)
        for sample in family.samples
        if sample.name == name
    }


def dropped(directory):
    """Return how often a metric was not stored."""
    found = {
        sample.labels["what"]: sample.value
        for family in merged(directory)
        for sample in family.samples
        if sample.name == "turnout_dropped_total"
    }
    return found["metrics"]


def test_which_outputs_count():
    """Classes are BYTES, BOOL and integers of one element a row, values are floats of one; matrices are neither."""
    assert is_class(LABEL)
    assert is_class(TensorSpec("flag", Datatype.BOOL, (-1,)))
    assert is_value(SCORE)
    assert not is_value(TensorSpec("probabilities", Datatype.FP64, (-1, 2)))
    assert not is_class(TensorSpec("one", Datatype.INT64, (1,)))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"late", "late"),
        (True, "true"),
        (False, "false"),
        (-3, "-3"),
        (None, "_missing"),
        (b"a\nb\x00", "a\ufffdb\ufffd"),
        (b"\xff", "\ufffd"),
        (b"x" * 1000, "x" * 64),
        (b"", ""),
    ],
)
def test_class_names_are_bounded_and_printable(value, name):
    """Whatever a model predicts becomes short, printable text."""
    assert class_name(value) == name


def test_rarer_classes_are_counted_together(tmp_path):
    """A version has 32 classes of its own; whatever comes later is `_other`, in batches and alone."""
    predicted = Metrics(tmp_path, 0).predicted(REF, [LABEL], ())
    predicted.count({"label": Tensor.of(np.array([f"c{index}" for index in range(40)], object))})
    predicted.count({"label": Tensor.of(np.array(["c0"], object))})
    predicted.count({"label": Tensor.of(np.array(["c39"], object))})
    found = samples(tmp_path, "turnout_predicted_class_total")
    assert len(found) == 33
    assert found["c0"] == 2
    assert found["_other"] == 9


def test_processes_agree_on_the_classes(tmp_path):
    """Two processes that see different classes still name 32 together, and count each other's by name."""
    first = Metrics(tmp_path, 0).predicted(REF, [LABEL], ())
    second = Metrics(tmp_path, 1).predicted(REF, [LABEL], ())
    first.count({"label": Tensor.of(np.array([f"a{index}" for index in range(20)], object))})
    second.count({"label": Tensor.of(np.array([f"b{index}" for index in range(20)], object))})
    second.count({"label": Tensor.of(np.array(["a0"], object))})
    found = samples(tmp_path, "turnout_predicted_class_total")
    assert len(found) == 33
    assert found["a0"] == 2
    assert found["_other"] == 8


def test_outputs_share_a_versions_classes(tmp_path):
    """With several class outputs each has its share, so that a version stays within 32."""
    group = TensorSpec("group", Datatype.INT64, (-1,))
    predicted = Metrics(tmp_path, 0).predicted(REF, [LABEL, group], ())
    predicted.count(
        {
            "label": Tensor.of(np.array([f"c{index}" for index in range(20)], object)),
            "group": Tensor.of(np.arange(100)),
        }
    )
    names = [
        sample.labels["class"]
        for family in merged(tmp_path)
        for sample in family.samples
        if sample.name == "turnout_predicted_class_total" and sample.labels["class"] != "_other"
    ]
    assert len(names) == 32


def test_shares_keep_to_the_bound():
    """However many outputs a version has, their shares add up to at most 32."""
    assert shares(0) == ()
    assert shares(1) == (32,)
    assert shares(3) == (10, 10, 10)
    assert all(sum(shares(count)) <= 32 for count in range(100))


def test_ledger_survives_a_restart(tmp_path):
    """Classes that were claimed once are known to later processes."""
    ClassLedger(tmp_path).claim("m@1", "label", "late", 1)
    assert ClassLedger(tmp_path).claim("m@1", "label", "early", 1) == {"late"}
    assert ClassLedger(tmp_path).claim("m@2", "label", "early", 1) == {"early"}


def test_a_full_disk_makes_new_classes_other_and_fails_nothing(tmp_path, caplog, monkeypatch):
    """What the ledger has no room for is counted as `_other` and told once; with room again classes get their own."""
    now_s = 100.0
    monkeypatch.setattr(metrics_module.clock, "monotonic_s", lambda: now_s)
    predicted = Metrics(tmp_path, 0).predicted(REF, [LABEL], ())
    predicted.count({"label": Tensor.of(np.array(["early", "early"], object))})
    with files_end_at((tmp_path / "classes.jsonl").stat().st_size + 5):
        for name in ("new", "newer", "early"):
            predicted.count({"label": Tensor.of(np.array([name], object))})
    now_s += 2
    predicted.count({"label": Tensor.of(np.array(["new"], object))})
    assert samples(tmp_path, "turnout_predicted_class_total") == {"early": 3, "_other": 2, "new": 1}
    assert dropped(tmp_path) == 2
    told = f"metrics cannot be stored under {tmp_path}; /metrics lacks some from now on: [Errno 28] No space left on "
    assert [record.getMessage() for record in caplog.records] == [told + "device"]


def test_a_held_ledger_holds_up_nobody(tmp_path):
    """While another process keeps the lock a new class is `_other`: the loop does not wait for it."""
    predicted = Metrics(tmp_path, 0).predicted(REF, [LABEL], ())
    with (tmp_path / "classes.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        predicted.count({"label": Tensor.of(np.array(["new"], object))})
    assert samples(tmp_path, "turnout_predicted_class_total") == {"_other": 1}
    assert dropped(tmp_path) == 1


def test_a_piece_of_a_line_is_cut_off(tmp_path):
    """What a full disk left of a class spoils neither the classes before it nor those after it."""
    ledger = ClassLedger(tmp_path)
    ledger.claim("m@1", "label", "one", 9)
    with (tmp_path / "classes.jsonl").open("a") as file:
        file.write('["m@1", "la')
    assert ledger.claim("m@1", "label", "two", 9) == {"one", "two"}
    assert ledger.claim("m@1", "label", "three", 9) == {"one", "two", "three"}


def test_values_use_their_models_buckets(tmp_path):
    """Each model brings its own bounds into the one family; NaN and infinity are left out of it."""
    metrics = Metrics(tmp_path, 0)
    metrics.predicted(REF, [SCORE], (0.5, 0.1)).count(
        {"score": Tensor.of(np.array([0.05, 0.3, 9.0, np.nan, np.inf, -np.inf]))}
    )
    one = metrics.predicted(VersionRef("other", 1), [SCORE], (100.0,))
    for value in (50.0, np.nan):
        one.count({"score": Tensor.of(np.array([value]))})
    (family,) = merged(tmp_path, "histogram")
    found = {
        (sample.labels["model"], sample.labels["le"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert found == {
        ("m", "0.1"): 1,
        ("m", "0.5"): 2,
        ("m", "+Inf"): 3,
        ("other", "100.0"): 1,
        ("other", "+Inf"): 1,
    }
    assert {sample.value for sample in family.samples if sample.name.endswith("_sum")} == {9.35, 50.0}


def test_unanswered_and_empty_outputs_count_nothing(tmp_path):
    """A request that asked for other outputs, or had no rows, leaves no count."""
    predicted = Metrics(tmp_path, 0).predicted(REF, [LABEL, SCORE], (1.0,))
    predicted.count({})
    predicted.count({"score": Tensor.of(np.array([])), "label": Tensor.of(np.array([], object))})
    assert samples(tmp_path, "turnout_predicted_class_total") == {}
    assert samples(tmp_path, "turnout_predicted_value_count") == {None: 0}


def test_bounds_are_put_in_order():
    """Declared bounds may come in any order, twice, or infinite."""
    assert bounded((3, 1, 1, float("inf"))) == (1.0, 3.0)
