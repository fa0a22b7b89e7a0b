"""A golden value moved by twice its tolerance refuses the load, in each runtime; half of it, and the right one, load.

Every version of a runtime computes the same line; they differ in their golden files only.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench import lines, versions
from bench.campaign.harness import Campaign, run
from bench.client import HttpClient, settled
from bench.launch import Gateway, serve

RUNTIMES: Final[dict[str, Callable[[list[Path]], None]]] = {
    "onnx": lines.write_onnx,
    "sklearn": lines.write_sklearn,
    "spark": lines.write_spark,
    "spi": lines.write_spi,
    "python": lines.write_python,
}
ROWS: Final = 16
NOISE: Final = 1e-9
"""How far runtimes may lie from the line: far below every tolerance here."""


class Bound(msgspec.Struct, frozen=True):
    """A way to write a tolerance, and what it allows at a value."""

    name: str
    tolerance: dict[str, Any]
    allowed: Callable[[float], float]


BOUNDS: Final = (
    Bound("abs", {"abs": 1e-3, "rel": 0}, lambda _: 1e-3),
    Bound("rel", {"abs": 0, "rel": 1e-4}, lambda value: 1e-4 * abs(value)),
    Bound("output", {"abs": 0, "rel": 0, "outputs": {versions.OUTPUT: {"abs": 1e-5}}}, lambda _: 1e-5),
)


class Case(msgspec.Struct, frozen=True):
    """One version: its golden file's tolerance, and by how many of it one value is moved, in which row."""

    number: int
    bound: Bound
    moved: float
    row: int

    @property
    def refused(self) -> bool:
        """Whether this version must not load."""
        return abs(self.moved) > 1

    def values(self, inputs: list[float]) -> list[float]:
        """Return the golden values: the line's, one moved."""
        wanted = [lines.value_at(x) for x in inputs]
        wanted[self.row] += self.moved * self.bound.allowed(wanted[self.row])
        return wanted


def cases(campaign: Campaign) -> list[Case]:
    """Return the right golden, and for each way to write a tolerance one moved by half and one by twice of it."""
    moves = [(BOUNDS[0], 0.0)] + [(bound, moved) for bound in BOUNDS for moved in (0.5, 2.0)]
    signs = [campaign.random.choice((-1, 1)) for _ in moves]
    return [
        Case(number, bound, sign * moved, campaign.random.randrange(ROWS))
        for number, ((bound, moved), sign) in enumerate(zip(moves, signs, strict=True), start=1)
    ]


def write_golden(folder: Path, case: Case, inputs: list[float]) -> None:
    """Write the golden file and name it in the version's model.yaml."""
    tensor = {"datatype": "FP64", "shape": [len(inputs)]}
    document = {
        "producer": "bench.campaign.golden",
        "inputs": [{"name": versions.INPUT, **tensor, "data": inputs}],
        "outputs": [{"name": versions.OUTPUT, **tensor, "data": case.values(inputs)}],
        "tolerance": case.bound.tolerance,
    }
    (folder / "golden.json").write_text(json.dumps(document))
    manifest = folder / "model.yaml"
    known = json.loads(manifest.read_text()) if manifest.exists() else {}
    manifest.write_text(json.dumps({**known, "golden": "golden.json"}))


def faults_of(reason: str, case: Case, inputs: list[float]) -> list[str]:
    """Return what a reason does not name: tensor, row, the file's value, the model's (up to noise)."""
    told = {
        "tensor": f"output '{versions.OUTPUT}'" in reason,
        "row": f" row {case.row}:" in reason,
        "the file's value": f"the file has {case.values(inputs)[case.row]}," in reason,
    }
    answered = reason.partition("the model answers ")[2].partition(";")[0]
    try:
        told["the model's value"] = abs(float(answered) - lines.value_at(inputs[case.row])) <= NOISE
    except ValueError:
        told["the model's value"] = False
    return [what for what, named in told.items() if not named]


async def answers(door: HttpClient, path: str, inputs: list[float]) -> str:
    """Ask for all rows; return what is wrong, or nothing."""
    tensor = {"name": versions.INPUT, "datatype": "FP64", "shape": [len(inputs)], "data": inputs}
    answer = await door.infer(path, json.dumps({"inputs": [tensor]}).encode())
    if answer.status != 200:
        return f"{answer.status}: {answer.body.decode()}"
    got = np.array(answer.json()["outputs"][0]["data"])
    right = np.abs(got - [lines.value_at(x) for x in inputs]) <= NOISE
    return "" if right.all() else f"wrong values: {got}"


async def judge(campaign: Campaign, gateway: Gateway, runtime: str, told: list[Case], inputs: list[float]) -> None:
    """Compare the index, its reasons and real answers with what each golden file calls for."""
    async with HttpClient(gateway.http, 1) as door:
        index = await settled(door)
        found = {int(entry["version"]): entry for entry in index if entry["name"] == runtime}
        served = {case.number: await answers(door, f"{runtime}/versions/{case.number}", inputs) for case in told}
        by_route = await answers(door, runtime, inputs)
    refused = [case for case in told if case.refused]
    up = [case.number for case in told if found[case.number]["state"] == "READY" and not served[case.number]]
    down = [case.number for case in told if found[case.number]["state"] == "UNAVAILABLE" and served[case.number]]
    reasons = {case.number: found[case.number]["reason"] for case in refused}
    campaign.note(f"{runtime}: reasons", reasons)
    wanted = [case.number for case in told if not case.refused]
    campaign.equal(f"{runtime}: versions that serve: right, or moved by half the tolerance", up, wanted)
    campaign.equal(f"{runtime}: versions refused: moved by twice the tolerance", down, [c.number for c in refused])
    vague = {case.number: faults_of(reasons[case.number], case, inputs) for case in refused}
    told_all = sum(not missing for missing in vague.values())
    campaign.equal(f"{runtime}: refusals that name tensor, row and both values", told_all, 3)
    campaign.equal(f"{runtime}: what the route answers beside them", by_route or "right", "right")


def check(campaign: Campaign, _: argparse.Namespace) -> None:
    """Serve each runtime's versions in a gateway of its own, all behind one route whose champion has a right golden."""
    inputs = [round(campaign.random.uniform(-50, 50), 3) for _ in range(ROWS)]
    told = cases(campaign)
    campaign.note("moved", {c.number: f"{c.bound.name}: {c.moved:g} x tolerance in row {c.row}" for c in told})
    for runtime, write in RUNTIMES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "models")
            at = [folder / runtime / str(case.number) for case in told]
            write(at)
            for case, version in zip(told, at, strict=True):
                write_golden(version, case, inputs)
            weights = {f"{runtime}@{case.number}": 0 if case.number > 1 else 10_000 for case in told}
            versions.write_routes(folder, {runtime: {"champion": f"{runtime}@1", "weights": weights}})
            with serve(folder, Path(temporary, "state"), within_s=300) as gateway:
                asyncio.run(judge(campaign, gateway, runtime, told, inputs))


if __name__ == "__main__":
    run("golden", check, argparse.ArgumentParser(description=__doc__))
