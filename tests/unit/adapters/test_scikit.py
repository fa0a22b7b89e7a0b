"""scikit-learn estimators: how their columns look, and what they answer."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from adapters.interface import LoadFailed
from adapters.scikit_columns import columns_of
from tests.unit.adapters.scikit_models import (
    FRAME,
    MATRIX,
    NAMED,
    ORIGINS,
    ROWS,
    TARGET,
    answers,
    flights,
    load,
    tensors,
)
from turnout.core.errors import InvalidInput
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Datatype, Tensor


def test_unnamed_features_are_one_matrix(tmp_path):
    """A classifier fitted on an array takes `x` and answers `label` and `probabilities`."""
    fitted = LogisticRegression().fit(MATRIX, TARGET)
    model = load(tmp_path, fitted)
    assert model.signature.inputs == (TensorSpec("x", Datatype.FP64, (-1, 3)),)
    assert model.signature.outputs == (
        TensorSpec("label", Datatype.INT64, (-1,)),
        TensorSpec("probabilities", Datatype.FP64, (-1, 2)),
    )
    assert answers(model, {"x": Tensor.of(MATRIX)}) == {
        "label": fitted.predict(MATRIX).tolist(),
        "probabilities": fitted.predict_proba(MATRIX).tolist(),
    }
    assert model.properties["engine"].startswith("scikit-learn ")
    model.close()


def test_a_missing_number_is_refused_where_the_estimator_cannot_use_it(tmp_path):
    """The caller is told which number it is, for a matrix and for named columns; who takes missing ones gets them."""
    missing = MATRIX.copy()
    missing[1, 2] = np.nan
    plain = load(tmp_path, make_pipeline(StandardScaler(), LogisticRegression()).fit(MATRIX, TARGET))
    with pytest.raises(InvalidInput, match="tensor 'x': element 5 is missing or infinite: Input X contains NaN"):
        answers(plain, {"x": Tensor.of(missing)})
    frame = pd.DataFrame(MATRIX, columns=["a", "b", "c"])
    named = load(tmp_path, LogisticRegression().fit(frame, TARGET))
    with pytest.raises(InvalidInput, match="tensor 'c': element 1 is missing or infinite"):
        answers(named, {name: Tensor.of(missing[:, at].copy()) for at, name in enumerate(frame)})
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(MATRIX, TARGET)
    got = answers(load(tmp_path, fitted), {"x": Tensor.of(missing)})
    assert got["label"] == fitted.predict(missing).tolist()


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_number_that_a_step_makes_infinite_is_still_found(tmp_path):
    """What scikit-learn need not look at again is only what is known to be finite: each step's rows are looked at."""
    fitted = make_pipeline(FunctionTransformer(np.log), LogisticRegression()).fit(np.abs(MATRIX) + 1, TARGET)
    model = load(tmp_path, fitted, ".pkl")
    assert answers(model, {"x": Tensor.of(np.abs(MATRIX) + 1)})["label"] == fitted.predict(np.abs(MATRIX) + 1).tolist()
    with pytest.raises(ValueError, match="infinity"):
        answers(model, {"x": Tensor.of(np.zeros_like(MATRIX))})


@pytest.mark.parametrize("suffix", [".skops", ".joblib", ".pkl"])
def test_named_columns_are_one_tensor_each(tmp_path, suffix):
    """A pipeline fitted on a frame takes its columns in their own datatypes and predicts as it did when fitted."""
    fitted = flights().fit(FRAME, NAMED)
    model = load(tmp_path, fitted, suffix)
    assert [(spec.name, spec.datatype, spec.shape, spec.nullable) for spec in model.signature.inputs] == [
        ("distance", Datatype.FP64, (-1,), False),
        ("month", Datatype.INT64, (-1,), False),
        ("carrier", Datatype.BYTES, (-1,), True),
        ("origin", Datatype.BYTES, (-1,), True),
        ("tail", Datatype.BYTES, (-1,), True),
        ("jet", Datatype.INT64, (-1,), False),
    ]
    got = answers(model, tensors(model, FRAME))
    assert got["label"] == [name.encode() for name in fitted.predict(FRAME)]
    assert got["probabilities"] == fitted.predict_proba(FRAME).tolist()


def test_missing_strings_are_what_they_were_when_fitted():
    """A missing string becomes NaN where the training data had NaN, and None where it had None."""
    carrier, origin = columns_of(flights().fit(FRAME, NAMED), list(FRAME.columns))[2:4]
    assert np.isnan(carrier.missing)
    assert origin.missing is None


@pytest.mark.parametrize("kind", [object, "str"])
@pytest.mark.parametrize("marker", [None, np.nan])
def test_a_missing_category_is_known_again(tmp_path, marker, kind):
    """An encoder that knows missing as a category sees it again, whichever way it was written."""
    values = np.array([marker if value is None else value for value in ORIGINS], object)
    frame = pd.DataFrame({"origin": pd.Series(values, dtype=object).astype(kind)})
    fitted = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, TARGET)
    model = load(tmp_path, fitted)
    assert answers(model, tensors(model, frame))["probabilities"] == fitted.predict_proba(frame).tolist()


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_unseen_categories_are_answered(tmp_path):
    """A category that training never saw is answered as the pipeline was told to."""
    fitted = flights().fit(FRAME, NAMED)
    model = load(tmp_path, fitted)
    planted = FRAME.assign(origin="XXX")
    assert answers(model, tensors(model, planted))["probabilities"] == fitted.predict_proba(planted).tolist()


def test_text_that_is_not_utf8_is_refused(tmp_path):
    """BYTES that are not UTF-8 are InvalidInput naming tensor and element."""
    model = load(tmp_path, flights().fit(FRAME, NAMED))
    inputs = tensors(model, FRAME) | {"tail": Tensor.of(np.array([b"\xff"] * ROWS, object))}
    with pytest.raises(InvalidInput, match="tensor 'tail': element 0 is not UTF-8"):
        model.predict(inputs, ("label",))


def test_a_column_of_booleans_takes_0_and_1_only(tmp_path):
    """A column fitted on booleans refuses other integers."""
    model = load(tmp_path, flights().fit(FRAME, NAMED))
    inputs = tensors(model, FRAME) | {"jet": Tensor.of(np.arange(ROWS))}
    with pytest.raises(InvalidInput, match="tensor 'jet': element 2 must be 0 or 1"):
        model.predict(inputs, ("label",))


@pytest.mark.parametrize(
    ("target", "shape"), [(TARGET, (-1,)), (TARGET[:, None], (-1,)), (np.stack([TARGET, TARGET], 1), (-1, 2))]
)
def test_regressors_answer_values(tmp_path, target, shape):
    """A regressor answers `value`, with as many columns as it was fitted on."""
    fitted = LinearRegression().fit(MATRIX, target)
    model = load(tmp_path, fitted)
    assert model.signature.normalised().outputs == (TensorSpec("value", Datatype.FP64, shape),)
    assert answers(model, {"x": Tensor.of(MATRIX)})["value"] == fitted.predict(MATRIX).tolist()


def test_a_classifier_without_probabilities_answers_labels(tmp_path):
    """Without predict_proba there is only `label`."""
    model = load(tmp_path, LinearSVC().fit(MATRIX, NAMED))
    assert [spec.name for spec in model.signature.outputs] == ["label"]
    assert model.signature.outputs[0].datatype is Datatype.BYTES


@pytest.mark.parametrize(("classes", "datatype"), [([0.0, 1.0], Datatype.INT64), ([False, True], Datatype.INT64)])
def test_whole_and_boolean_classes_are_integers(tmp_path, classes, datatype):
    """Classes 0.0 and 1.0, and booleans, are INT64 labels."""
    model = load(tmp_path, LogisticRegression().fit(MATRIX, np.array(classes)[TARGET]))
    assert model.signature.outputs[0].datatype is datatype
    assert set(answers(model, {"x": Tensor.of(MATRIX)})["label"]) == {0, 1}


def test_a_pipeline_on_documents_takes_text(tmp_path):
    """A vectoriser in front takes one text a row, an array of text one row of texts."""
    documents = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(FRAME["tail"], TARGET)
    assert load(tmp_path, documents).signature.inputs == (TensorSpec("x", Datatype.BYTES, (-1,), nullable=True),)
    table = FRAME[["tail", "carrier"]].to_numpy()
    encoded = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, TARGET)
    model = load(tmp_path, encoded)
    assert model.signature.inputs == (TensorSpec("x", Datatype.BYTES, (-1, 2), nullable=True),)
    texts = np.array([[t, c if isinstance(c, str) else None] for t, c in table], object)
    assert answers(model, {"x": Tensor.of(texts)})["probabilities"] == encoded.predict_proba(table).tolist()


def test_a_search_serves_its_best_estimator(tmp_path):
    """A finished grid search answers as it does itself."""
    search = GridSearchCV(flights(), {"logisticregression__C": [0.1, 1]}, cv=2).fit(FRAME, NAMED)
    model = load(tmp_path, search, ".joblib")
    assert model.signature.input("carrier").datatype is Datatype.BYTES
    assert answers(model, tensors(model, FRAME))["probabilities"] == search.predict_proba(FRAME).tolist()


def test_columns_are_found_inside_other_estimators():
    """Fitted transformers tell of their columns from inside unions, calibrators and boosted trees."""
    union = FeatureUnion([("codes", OrdinalEncoder(encoded_missing_value=-1)), ("hot", OneHotEncoder())])
    frame = FRAME[["carrier", "tail"]]
    fitted = CalibratedClassifierCV(make_pipeline(union, LogisticRegression()), cv=2).fit(frame, TARGET)
    assert [column.datatype for column in columns_of(fitted, list(frame))] == [Datatype.BYTES] * 2
    boosted = HistGradientBoostingClassifier(max_iter=2, categorical_features=["carrier"]).fit(
        FRAME[["distance", "carrier"]].astype({"carrier": "category"}), TARGET
    )
    assert [column.datatype for column in columns_of(boosted, ["distance", "carrier"])] == [
        Datatype.FP64,
        Datatype.BYTES,
    ]


@pytest.mark.parametrize(
    "chosen",
    [
        ["carrier"],
        [2],
        slice(2, 3),
        slice("carrier", "carrier"),
        [False, False, True, False, False, False],
        make_column_selector("carrier"),
    ],
)
def test_columns_are_chosen_in_every_way(chosen):
    """Names, positions, slices, masks and selectors of a ColumnTransformer mean the same column."""
    columns = ColumnTransformer([("c", OrdinalEncoder(), chosen)], remainder="drop").fit(FRAME)
    found = columns_of(columns, list(FRAME.columns))
    assert [column.datatype for column in found].count(Datatype.BYTES) == 1
    assert found[2].datatype is Datatype.BYTES


MIXED = np.array([["a", 1.0], ["b", 2.0]], object)
MIXING = ColumnTransformer([("o", OrdinalEncoder(), [0])], remainder="passthrough")


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (MultiOutputClassifier(LogisticRegression()).fit(MATRIX, np.stack([TARGET, TARGET], 1)), "multi-output"),
        (MLPClassifier(max_iter=400, tol=1).fit(MATRIX, np.stack([TARGET, TARGET], 1)), "multi-output"),
        (KMeans(2, n_init=1).fit(MATRIX), "KMeans is neither a classifier nor a regressor"),
        (StandardScaler().fit(MATRIX), "StandardScaler, which has no predict"),
        (LogisticRegression(), "LogisticRegression is not fitted"),
        ({"model": 1}, "dict, which has no predict"),
        (make_pipeline(MIXING, LinearRegression()).fit(MIXED, [1, 2]), "text and numbers in one unnamed array"),
    ],
    ids=["several labels", "several labels in one", "cluster", "no predict", "unfitted", "no estimator", "mixed array"],
)
def test_what_has_no_place_in_the_contract_is_refused(tmp_path, estimator, reason):
    """Estimators whose outputs or inputs have no known meaning are refused by name."""
    with pytest.raises(LoadFailed, match=reason):
        load(tmp_path, estimator, ".joblib")
