"""Saved Spark pipelines in their workers: folded where they can be, and equal to `transform` in any case."""

import numpy as np
import pytest
import yaml

from tests.integration.jvm.frames_by_hand import ERROR, RESULT, text
from tests.integration.jvm.jvm_worker import properties, running, source_of
from tests.integration.jvm.spark_plans import FOLDING, PASSED, SLOW, passed
from tests.integration.jvm.spark_runs import QUICK_START, save_by_hand
from turnout.core.tensor import Tensor, equal_bits

pytestmark = pytest.mark.timeout(900)

TOLERANCE = 1e-12
MIN_ROWS = 300


def difference(answer, expected):
    """Return the largest difference of one row's answer from `transform`; text must be equal."""
    worst = 0.0
    for name, want in expected.items():
        got = answer.tensors[name].array[0]
        if isinstance(want, str):
            assert got == want.encode()
        else:
            worst = max(worst, float(np.max(np.abs(np.array(want, dtype=float) - got))))
    return worst


@pytest.mark.parametrize("name", FOLDING)
def test_folded_equals_transform(runs, name):
    """Row by row and with eight callers at once, a folded pipeline answers what `transform` answered in training."""
    run = runs[name]
    assert run.properties["mode"] == "folded", run.properties
    answered = [(answer, want) for answer, want in zip(run.answers, run.reference["answers"], strict=True) if want]
    assert len(answered) >= MIN_ROWS
    assert {answer.type for answer, _ in answered} == {RESULT}
    assert max(difference(answer, want) for answer, want in answered) <= TOLERANCE


@pytest.mark.parametrize("name", SLOW)
def test_what_is_not_row_wise_is_slow_and_says_why(runs, name):
    """A pipeline that cannot be folded is served by `transform`, marked slow with the reason in its properties."""
    run = runs[name]
    properties = run.properties
    assert (properties["mode"], properties["slow"], properties["slow_reason"]) == ("transform", "true", SLOW[name][1])
    assert {answer.type for answer in run.answers} == {RESULT}


@pytest.mark.parametrize("name", ["random", "today"])
def test_slow_rows_equal_transform(runs, name):
    """Served by `transform`, single rows are what they were in training."""
    run = runs[name]
    pairs = zip(run.answers, run.reference["answers"], strict=False)
    assert max(difference(answer, want) for answer, want in pairs) <= TOLERANCE


def test_a_request_is_one_frame_to_transform(runs):
    """An aggregate sees all rows of a request, and each row gets its own answer."""
    run = runs["aggregate"]
    answer = run.probed
    assert answer.type == RESULT, answer.message
    want = [row["probability"] for row in run.reference["answers"]]
    np.testing.assert_allclose(answer.tensors["probability"].array, want, rtol=0, atol=TOLERANCE)


def test_inputs_are_what_outputs_depend_on(runs):
    """Raw columns alone are inputs; the left-in label indexer's column is ignored, sent or not."""
    run = runs["flights_rf"]
    assert run.inputs == [
        ["carrier", "BYTES", "-1", "1"],
        ["origin", "BYTES", "-1", "1"],
        ["dep_delay", "FP64", "-1", "0"],
        ["distance", "FP64", "-1", "0"],
    ]
    assert run.ignored == ["outcome"]
    assert [name for name, *_ in runs["sql_misc"].inputs] == ["f0", "f2", "f3", "f4", "f7"]
    labelled, short, nothing = run.probed
    assert labelled.type == RESULT
    assert difference(labelled, {"prediction": run.reference["answers"][0]["prediction"]}) == 0
    assert (short.code, short.message) == ("invalid_input", "tensor 'origin': missing")
    assert nothing.tensors["probability"].shape == (0, 2)


def test_outputs_have_names_types_and_widths(runs):
    """`prediction` and `probability` by default, or the declared columns; what a stage predicts is FP64."""
    assert runs["cancer_gbt"].outputs == [["prediction", "FP64", "-1"], ["probability", "FP64", "-1,2"]]
    assert runs["flights_rf"].outputs[2] == ["answer", "BYTES", "-1"]
    assert runs["clusters"].outputs == [["prediction", "FP64", "-1"]]
    assert runs["clusters"].inputs == [["pair", "FP64", "-1,2", "0"], ["f2", "FP64", "-1", "0"]]


def test_dropped_rows_are_the_callers_fault(runs):
    """A row that the pipeline skips is named by its place in the request, and the rest is answered without it."""
    run = runs["skipping"]
    for answer, want in zip(run.answers, run.reference["answers"], strict=True):
        assert (answer.type == RESULT) == (want is not None)
    unseen, missing, fine = run.probed[0]
    assert (unseen.code, unseen.message) == ("invalid_input", "tensor 'carrier': row 1: the pipeline drops it")
    assert missing.code == "invalid_input"
    assert "row 2: the pipeline drops it" in missing.message
    assert fine.type == RESULT


def test_a_dropped_row_fails_alone_among_gathered_requests(runs):
    """In a call of many requests the one whose row is dropped is told of its own row; the others are answered."""
    run = runs["skipping"]
    _, told, calls = run.probed
    wanted = [None if answer is None else [answer["prediction"]] for answer in run.reference["answers"][:16]]
    dropped = [at for at, end in enumerate(told) if isinstance(end, str)]
    assert 7 in dropped
    assert told[7] == "tensor 'carrier': row 0: the pipeline drops it"
    assert [end for at, end in enumerate(told) if at not in dropped] == [
        want for at, want in enumerate(wanted) if at not in dropped
    ]
    assert all(at == 7 or wanted[at] is None for at in dropped)
    assert calls[:2] == [1, 15]


def test_rows_that_throw_are_the_models_fault(runs):
    """A row on which the pipeline throws is a fault of the model, and the next request is answered."""
    unseen, missing, fine = runs["throwing"].probed
    assert (unseen.type, unseen.code) == (ERROR, "model_fault")
    assert unseen.message.startswith("IllegalStateException: row 1; caused by SparkException: ")
    assert "Unseen label: ZZ" in unseen.message
    assert (missing.type, missing.code) == (ERROR, "model_fault")
    assert fine.type == RESULT


def test_every_datatype_passes_bit_by_bit(runs):
    """Each datatype that Spark can carry comes back as it was: -0.0, NaN as NULL, 64-bit integers, any text."""
    run = runs["passing"]
    assert run.properties["mode"] == "folded"
    answer, broken = run.probed
    assert answer.type == RESULT, answer.message
    for name in PASSED:
        assert equal_bits(answer.tensors[f"{name}_out"], passed(name)), name
    assert (broken.code, broken.message) == ("invalid_input", "tensor 's': row 1 is not UTF-8")


def test_nothing_is_wrong_in_the_logs(runs):
    """Workers write no stack trace while all goes well."""
    for name, run in runs.items():
        assert "\tat " not in run.log, f"{name}: {run.log}"


def test_texts_are_told(runs):
    """The answer column of an IndexToString is text."""
    got = {text(answer.tensors["answer"])[0] for answer in runs["flights_rf"].answers}
    assert got == {"late", "on time"}


async def test_unknown_types_are_asked_for(pipelines, scratch, tmp_path):
    """Without declared inputs and golden rows the load is refused, with a signature to paste into model.yaml."""
    async with running(source_of(tmp_path, pipelines / "flights_rf", "model", QUICK_START, scratch=scratch)) as worker:
        answer = await worker.load()
        assert (answer.type, answer.code) == (ERROR, "load_failed")
        assert await worker.stopped() == 1
    pasted = yaml.safe_load(answer.message[answer.message.index("signature:") :])
    assert pasted == {
        "signature": {
            "inputs": [
                {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
                {"name": "origin", "datatype": "BYTES", "shape": [-1]},
                {"name": "dep_delay", "datatype": "FP64", "shape": [-1]},
                {"name": "distance", "datatype": "FP64", "shape": [-1]},
            ]
        }
    }


@pytest.mark.parametrize("datatype", ["UINT64", "FP16", "BF16"])
async def test_datatypes_that_spark_lacks_are_refused(pipelines, scratch, tmp_path, datatype):
    """A declared datatype that no column of Spark holds is refused by name."""
    async with running(source_of(tmp_path, pipelines / "sql_misc", "model", {}, scratch=scratch)) as worker:
        answer = await worker.load(inputs=[("f0", datatype, "-1")])
        assert (answer.code, answer.message) == ("load_failed", f"input 'f0': Spark has no type for {datatype}")


async def test_folding_that_changes_answers_is_given_up(stage_jar, scratch, tmp_path):
    """Where folded answers differ from `transform` on sample rows, `transform` serves; a stage may come in a jar."""
    save_by_hand(tmp_path / "model", {"drifting_1": ("com.acme.Drifting", {})})
    options = {"jars": [str(stage_jar)]} | QUICK_START
    async with running(source_of(tmp_path, tmp_path, "model", options, scratch=scratch)) as worker:
        loaded = await worker.loaded(inputs=[("x", "FP64", "-1")], outputs=[("prediction", "FP64", "-1")])
        assert properties(loaded)["mode"] == "transform"
        assert "prediction: transform answers" in properties(loaded)["slow_reason"]
        answered = await worker.client.predict(x=Tensor.of(np.array([0.5, np.nan])))
        assert np.isnan(answered["prediction"].array).tolist() == [False, True]


async def test_sql_of_an_untrusted_folder_runs_no_code(scratch, tmp_path):
    """SQL that calls methods by name is refused before anything of the pipeline runs, unless the folder is trusted."""
    statement = "SELECT *, java_method('java.lang.System', 'exit', 0) AS prediction FROM __THIS__"
    stage = ("org.apache.spark.ml.feature.SQLTransformer", {"statement": statement})
    save_by_hand(tmp_path / "model", {"sql_1": stage})
    async with running(source_of(tmp_path, tmp_path, "model", {}, scratch=scratch, trusted=False)) as worker:
        answer = await worker.load(inputs=[("x", "FP64", "-1")], outputs=[("prediction", "FP64", "-1")])
    assert answer.code == "load_failed"
    assert answer.message.startswith(
        "SQL of a stage does more than ask of its own rows, and this folder is not trusted"
    )
