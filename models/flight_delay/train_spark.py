"""Trains version 3, a Spark PipelineModel: `python -m models.flight_delay.train_spark OUT`. Needs a JDK 17 or newer.

Prints one line a step, as `step/steps text`. OUT gets the folder `3`, and `reference.csv`.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyspark
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import Imputer, OneHotEncoder, StringIndexer, VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

from models.flight_delay import data, golden, manifests
from models.flight_delay.features import COLUMNS, LABEL, NUMBERS, TEXTS
from models.flight_delay.steps import Steps

TOLERANCE: Final = 1e-12
PARTITIONS: Final = 2
SCHEMA: Final = StructType(
    [StructField(name, StringType()) for name in TEXTS] + [StructField(name, DoubleType()) for name in NUMBERS]
)


def pipeline() -> Pipeline:
    """Return the untrained pipeline: indexed and one-hot text, imputed numbers, logistic regression."""
    indexed = [f"{name}_index" for name in TEXTS]
    one_hot = [f"{name}_one_hot" for name in TEXTS]
    whole = [f"{name}_whole" for name in NUMBERS]
    return Pipeline(
        stages=[
            StringIndexer(inputCols=list(TEXTS), outputCols=indexed, handleInvalid="keep"),
            OneHotEncoder(inputCols=indexed, outputCols=one_hot, dropLast=True),
            Imputer(strategy="mean", inputCols=list(NUMBERS), outputCols=whole),
            VectorAssembler(inputCols=[*one_hot, *whole], outputCol="features"),
            LogisticRegression(maxIter=100, tol=1e-6, regParam=0.0),
        ]
    )


def train(out: Path) -> None:
    """Write the version, its golden file and the reference."""
    steps = Steps(5)
    steps.next("starting Spark")
    with tempfile.TemporaryDirectory() as scratch:
        spark = session(scratch)
        try:
            train_with(spark, out, Path(scratch), steps)
        finally:
            spark.stop()


def train_with(spark: SparkSession, out: Path, scratch: Path, steps: Steps) -> None:
    """Do the work of `train` in a session, with `scratch` for what need not stay."""
    steps.next("reading flights")
    frame = data.flights()
    training, later = data.training(frame), data.later(frame)

    steps.next(f"fitting Spark on {len(training):,} flights")
    rows = table(spark, training[[*COLUMNS, LABEL]], scratch / "training.csv").repartition(PARTITIONS).cache()
    model = pipeline().fit(rows)

    steps.next("writing version 3 (Spark)")
    version = out / "3"
    version.mkdir(parents=True)
    model.write().save(str(version / "pipeline"))
    (version / "model.yaml").write_text(manifests.SPARK)
    chosen = golden.golden_rows(later)
    labels, probabilities = answers(model, table(spark, chosen, scratch / "golden.csv"))
    golden.write_golden(
        version / "golden.json",
        chosen,
        labels,
        probabilities,
        producer=f"pyspark {pyspark.__version__}",
        tolerance={"abs": TOLERANCE},
    )

    steps.next("answering the reference flights")
    reference = golden.reference_rows(later)
    labels, probabilities = answers(model, table(spark, reference[list(COLUMNS)], scratch / "reference.csv"))
    golden.write_reference(out / "reference.csv", reference, labels, probabilities[:, 1])


def session(scratch: str) -> SparkSession:
    """Return a quiet local session on two cores that leaves nothing behind."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": scratch,
        "spark.sql.warehouse.dir": f"{scratch}/warehouse",
        "spark.sql.shuffle.partitions": str(PARTITIONS),
    }
    builder = SparkSession.builder.master(f"local[{PARTITIONS}]").appName("flight-delay")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark: SparkSession = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def table(spark: SparkSession, frame: pd.DataFrame, path: Path) -> DataFrame:
    """Return a frame as a Spark table in the same order; missing is NULL. It travels as text, every digit kept."""
    frame.to_csv(path, index=False)
    schema = StructType([*SCHEMA.fields, *([StructField(LABEL, DoubleType())] if LABEL in frame else [])])
    return spark.read.csv(str(path), schema=schema, header=True)


def answers(model: PipelineModel, rows: DataFrame) -> "tuple[np.typing.NDArray[np.int64], np.typing.NDArray[Any]]":
    """Return labels, and probabilities of shape [n, 2], by Spark's own `transform`."""
    answered = model.transform(rows.coalesce(1)).select("prediction", "probability").collect()
    labels = np.array([row["prediction"] for row in answered]).astype(np.int64)
    return labels, np.array([row["probability"].toArray() for row in answered])


if __name__ == "__main__":
    train(Path(sys.argv[1]))
