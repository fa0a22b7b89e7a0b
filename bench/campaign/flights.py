"""20,000 later flights, pinned to each version by each form, against what the training side answered beforehand.

Bars: scikit-learn no difference; Spark 1e-12; ONNX 1e-5 from scikit-learn, and no flip unless p is within 1e-5 of 0.5.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from bench.campaign.harness import ROOT, Campaign, run
from bench.client import GrpcClient, HttpClient
from bench.launch import serve
from models.flight_delay import data, golden, lineup, training
from models.flight_delay.features import LABEL, MODEL, NUMBERS
from models.flight_delay.tally import auc
from models.flight_delay.wire import Answers, Flights, read_grpc, read_http

FORMS: Final = ("json", "binary", "grpc")
ROWS: Final = 64
EDGE: Final = 1e-5
BARS: Final = {1: 0.0, 2: 1e-5, 3: 1e-12}
READY_S: Final = 240.0


class Reference(NamedTuple):
    """The training side's word: the flights, its labels and probabilities."""

    rows: pd.DataFrame
    labels: "np.typing.NDArray[np.int64]"
    late: "np.typing.NDArray[np.float64]"


def read(path: Path) -> Reference:
    """Read a reference file."""
    rows = golden.read_reference(path)
    return Reference(rows, rows["answered"].to_numpy(), rows["late"].to_numpy())


async def ask(http: HttpClient, grpc: GrpcClient, flights: Flights, version: int, form: str) -> Answers:
    """Return a version's answers to all flights by one form, eight requests at a time. Raises RuntimeError."""
    bound = asyncio.Semaphore(8)

    async def one(start: int) -> Answers:
        stop = min(start + ROWS, flights.count)
        path = f"{MODEL}/versions/{version}"
        async with bound:
            if form == "grpc":
                answer = await grpc.infer(flights.as_message(start, stop, MODEL, str(version)))
            elif form == "json":
                answer = await http.infer(path, flights.as_json(start, stop))
            else:
                answer = await http.infer(path, *flights.as_binary(start, stop))
        if answer.status != (0 if form == "grpc" else 200):
            raise RuntimeError(f"{form}, version {version}: {answer.status} {answer.body[:300]!r}")
        return read_grpc(answer) if form == "grpc" else read_http(answer)

    parts = await asyncio.gather(*(one(start) for start in range(0, flights.count, ROWS)))
    return Answers(np.concatenate([part.labels for part in parts]), np.concatenate([part.late for part in parts]))


async def ready(http: HttpClient, version: int) -> None:
    """Wait until a version is ready. Raises TimeoutError."""
    async with asyncio.timeout(READY_S):
        while (await http.call("GET", f"/v2/models/{MODEL}/versions/{version}/ready")).status != 200:
            await asyncio.sleep(0.5)


async def compare(campaign: Campaign, http_at: str, grpc_at: str, references: dict[int, Reference]) -> None:
    """Ask every version for all flights by every form and record the differences."""
    async with HttpClient(http_at, 8) as http, GrpcClient(grpc_at, 2) as grpc:
        for version, reference in references.items():
            await ready(http, version)
            flights = Flights(reference.rows)
            for form in FORMS:
                judge(campaign, version, form, await ask(http, grpc, flights, version, form), reference)


def judge(campaign: Campaign, version: int, form: str, answers: Answers, reference: Reference) -> None:
    """Record one version's answers by one form."""
    name = f"{next(part.runtime for part in lineup.PARTS if part.version == version)} by {form}"
    campaign.equal(f"{name}: flights answered", len(answers.late), len(reference.late))
    worst = float(np.abs(answers.late - reference.late).max())
    campaign.at_most(f"{name}: largest difference of probabilities", worst, BARS[version])
    flips = (answers.labels != reference.labels) & (np.abs(reference.late - 0.5) >= EDGE)
    campaign.equal(f"{name}: labels flipped away from the edge", int(flips.sum()), 0)
    share = float(answers.labels.mean())
    campaign.between(f"{name}: share answered late", share, 0.1, 0.9)
    area = auc(answers.late, reference.rows[LABEL].to_numpy())
    campaign.at_least(f"{name}: AUC, a constant has 0.5", area, 0.6)


def hold_rows(campaign: Campaign, reference: Reference) -> None:
    """Record that the flights have what makes them hard."""
    rows = reference.rows
    seen = set(data.training(data.flights())["dest"])
    campaign.equal("flights", len(rows), golden.REFERENCE_ROWS)
    campaign.at_least("flights with a missing number", int(rows[list(NUMBERS)].isna().any(axis=1).sum()), 1)
    campaign.at_least("flights to an unseen destination", int((~rows["dest"].isin(seen)).sum()), 1)
    campaign.equal("flights of the planted carrier", int((rows["carrier"] == golden.PLANTED_CARRIER).sum()), 1)


def check(campaign: Campaign, _: argparse.Namespace) -> None:
    """Train if needed, serve all three versions, compare."""
    programs: Any = (training.SCIKIT, training.SPARK)
    trained = asyncio.run(training.ensure(programs, ROOT / "build" / "flight_delay", {}, lambda *_: None))
    scikit = read(trained[training.SCIKIT.name] / "reference.csv")
    references = {1: scikit, 2: scikit, 3: read(trained[training.SPARK.name] / "reference.csv")}
    hold_rows(campaign, scikit)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        lineup.assemble(folder, lineup.PARTS, trained)
        with serve(folder, Path(temporary, "state")) as gateway:
            asyncio.run(compare(campaign, gateway.http, gateway.grpc, references))


if __name__ == "__main__":
    run("flights", check)
