"""Trains version 1 (scikit-learn) and exports version 2 (ONNX) from it: `python -m ….train_scikit OUT`.

Prints one line a step, as `step/steps text`. OUT gets the folders `1` and `2`, and `reference.csv`.
"""

import sys
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import sklearn
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from models.flight_delay import data, golden, manifests
from models.flight_delay.export_onnx import export
from models.flight_delay.features import COLUMNS, LABEL, NUMBERS, TEXTS
from models.flight_delay.steps import Steps

# Answers of the exported model may differ from scikit-learn's by what FP32 numbers cost.
ONNX_TOLERANCE: Final = 1e-5
SCIKIT_TOLERANCE: Final = 1e-12


def pipeline() -> Pipeline:
    """Return the untrained model: one-hot text, imputed and scaled numbers, logistic regression."""
    columns = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), list(TEXTS)),
            ("numbers", make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()), list(NUMBERS)),
        ]
    )
    return Pipeline([("columns", columns), ("model", LogisticRegression(max_iter=1000))])


def train(out: Path) -> None:
    """Write both versions, their golden files and the reference."""
    steps = Steps(5)
    steps.next("reading flights")
    frame = data.flights()
    training, later = data.training(frame), data.later(frame)

    steps.next(f"fitting scikit-learn on {len(training):,} flights")
    model = pipeline().fit(training[list(COLUMNS)], training[LABEL])

    steps.next("writing version 1 (scikit-learn)")
    scikit = out / "1"
    scikit.mkdir(parents=True)
    skops.io.dump(model, scikit / "model.skops")
    (scikit / "model.yaml").write_text(manifests.SCIKIT)
    rows = golden.golden_rows(later)
    labels, probabilities = answers(model, rows)
    producer = f"scikit-learn {sklearn.__version__}"
    golden.write_golden(
        scikit / "golden.json", rows, labels, probabilities, producer=producer, tolerance={"abs": SCIKIT_TOLERANCE}
    )

    steps.next("writing version 2 (ONNX)")
    onnx = out / "2"
    onnx.mkdir()
    (onnx / "model.onnx").write_bytes(export(model))
    (onnx / "model.yaml").write_text(manifests.ONNX)
    golden.write_golden(
        onnx / "golden.json", rows, labels, probabilities, producer=producer, tolerance={"abs": ONNX_TOLERANCE}
    )

    steps.next("answering the reference flights")
    reference = golden.reference_rows(later)
    labels, probabilities = answers(model, reference)
    golden.write_reference(out / "reference.csv", reference, labels, probabilities[:, 1])


def answers(model: Pipeline, rows: pd.DataFrame) -> "tuple[np.typing.NDArray[np.int64], np.typing.NDArray[np.float64]]":
    """Return labels, and probabilities of shape [n, 2]."""
    columns = rows[list(COLUMNS)]
    return model.predict(columns), model.predict_proba(columns)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
