"""Fitted estimators on a few made-up flights, and how tests load them."""

import asyncio
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from adapters.scikit import ScikitAdapter
from tests.contract.worker_models import source
from turnout.core.tensor import Datatype, Tensor

RNG = np.random.default_rng(20)
ROWS = 80
TARGET = np.arange(ROWS) % 2
NAMED = np.where(TARGET == 1, "late", "on time")
MATRIX = RNG.normal(size=(ROWS, 3)) + TARGET[:, None]
CARRIERS = RNG.choice(["AA", "UA", "DL"], ROWS).astype(object)
CARRIERS[::11] = np.nan
ORIGINS = RNG.choice(["EWR", "JFK"], ROWS).astype(object)
ORIGINS[::7] = None
FRAME = pd.DataFrame(
    {
        "distance": np.where(np.arange(ROWS) % 9 == 0, np.nan, RNG.normal(size=ROWS)),
        "month": RNG.integers(1, 13, ROWS),
        "carrier": pd.Series(CARRIERS, dtype=object),
        "origin": pd.Series(ORIGINS, dtype=object),
        "tail": RNG.choice(["N1 blue", "N2 red"], ROWS),
        "jet": TARGET == 1,
    }
)


def flights(last=None):
    """Return an unfitted pipeline on the columns of `FRAME`."""
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["distance"]),
            ("months", OneHotEncoder(handle_unknown="ignore"), ["month"]),
            ("filled", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["carrier"]),
            ("open", OneHotEncoder(handle_unknown="ignore"), ["origin", "jet"]),
            ("words", TfidfVectorizer(), "tail"),
        ]
    )
    return make_pipeline(columns, last or LogisticRegression())


def load(folder, estimator, suffix=".skops", *, trusted=True, samples=None, **options):
    """Save an estimator and load it through the adapter."""
    path = folder / f"model{suffix}"
    if suffix == ".skops":
        skops.io.dump(estimator, path)
    else:
        joblib.dump(estimator, path)
    return load_file(path, trusted=trusted, samples=samples, **options)


def load_file(path, *, trusted=True, samples=None, **options):
    """Load a file through the adapter."""
    model = source(path.parent, Path(path.name), options)
    fields = {name: getattr(model, name) for name in model.__struct_fields__}
    return asyncio.run(ScikitAdapter().load(type(model)(**{**fields, "trusted": trusted, "samples": samples})))


def tensors(model, frame):
    """Return a frame's columns as the model's inputs."""
    return {
        spec.name: Tensor.of(
            np.array([value if isinstance(value, str) else None for value in frame[spec.name]], object)
            if spec.datatype is Datatype.BYTES
            else frame[spec.name].to_numpy().astype(spec.datatype.dtype)
        )
        for spec in model.signature.inputs
    }


def answers(model, inputs):
    """Return all outputs as lists."""
    outputs = model.predict(inputs, tuple(spec.name for spec in model.signature.outputs))
    return {name: tensor.array.tolist() for name, tensor in outputs.items()}
