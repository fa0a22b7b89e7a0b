"""Rows that every load of a version replays, and 20,000 reference rows, with the answers of the training side."""

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.flight_delay.features import COLUMNS, LABEL, NUMBERS, PROBABILITIES, TEXTS

GOLDEN_ROWS: Final = 32
REFERENCE_ROWS: Final = 20_000
# A carrier that no flight of the data has: planted, so that unknown text is among the rows.
PLANTED_CARRIER: Final = "ZZ"


def golden_rows(later: pd.DataFrame) -> pd.DataFrame:
    """Return later flights, evenly spread, with missing numbers, an unseen destination and a planted carrier."""
    unseen = later[later["dest"].isin({"ANC", "ILM", "LEX", "SBN"})].head(2)
    missing = later[later["plane_year"].isna() & later["pressure"].isna()].head(4)
    planted = later.head(1).assign(carrier=PLANTED_CARRIER)
    spread = later.iloc[np.linspace(0, len(later) - 1, GOLDEN_ROWS - 7).astype(int)]
    return pd.concat([spread, unseen, missing, planted], ignore_index=True)[list(COLUMNS)]


def reference_rows(later: pd.DataFrame) -> pd.DataFrame:
    """Return 20,000 later flights, evenly spread; the last one flies with a planted carrier."""
    spread = later.iloc[np.linspace(0, len(later) - 1, REFERENCE_ROWS).astype(int)].reset_index(drop=True)
    spread.loc[len(spread) - 1, "carrier"] = PLANTED_CARRIER
    return spread[[*COLUMNS, LABEL]]


def write_golden(
    path: Path,
    rows: pd.DataFrame,
    labels: "np.typing.NDArray[np.int64]",
    probabilities: "np.typing.NDArray[np.float64]",
    *,
    producer: str,
    tolerance: dict[str, float],
) -> None:
    """Write golden.json: rows as presented inputs, with the presented outputs that `producer` gave for them."""
    inputs = [_tensor(name, "BYTES", list(rows[name])) for name in TEXTS]
    inputs += [_tensor(name, "FP64", [_nullable(value) for value in rows[name]]) for name in NUMBERS]
    outputs = [
        _tensor(LABEL, "INT64", [int(value) for value in labels]),
        {
            "name": PROBABILITIES,
            "datatype": "FP64",
            "shape": list(probabilities.shape),
            "data": [float(value) for value in probabilities.reshape(-1)],
        },
    ]
    document = {"producer": producer, "inputs": inputs, "outputs": outputs, "tolerance": tolerance}
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_reference(
    path: Path, rows: pd.DataFrame, labels: "np.typing.NDArray[np.int64]", late: "np.typing.NDArray[np.float64]"
) -> None:
    """Write the reference rows with `answered` (label) and `late` (its probability), every digit kept."""
    rows.assign(answered=labels, late=late).to_csv(path, index=False)


def read_reference(path: Path) -> pd.DataFrame:
    """Read what `write_reference` wrote, bit for bit."""
    kinds: dict[str, Any] = dict.fromkeys(TEXTS, object) | dict.fromkeys(NUMBERS, "float64")
    return pd.read_csv(path, dtype=kinds)


def _tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def _nullable(value: float) -> float | None:
    return None if math.isnan(value) else value
