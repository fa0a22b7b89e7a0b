"""Which versions the tour serves, in which part; and the folder of models that the gateway is given."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from models.flight_delay.features import MODEL
from models.flight_delay.training import SCIKIT, SPARK, Program

CHAMPION: Final = 2
CANARY: Final = 1
SHADOW: Final = 3
CANARY_WEIGHT: Final = 500
BUCKETS: Final = 10_000


class Part(NamedTuple):
    """A version's part in the tour."""

    version: int
    runtime: str
    role: str
    program: Program


PARTS: Final = (
    Part(CHAMPION, "ONNX", "champion", SCIKIT),
    Part(CANARY, "scikit-learn", "canary", SCIKIT),
    Part(SHADOW, "Spark (JVM)", "shadow", SPARK),
)


def parts(*, with_spark: bool) -> tuple[Part, ...]:
    """Return the parts that can be played on this machine."""
    return tuple(part for part in PARTS if with_spark or part.program is not SPARK)


def routes(present: tuple[Part, ...]) -> str:
    """Return routes.yaml."""
    lines = [
        "routes:",
        f"  {MODEL}:",
        f"    champion: {MODEL}@{CHAMPION}",
        f"    weights: {{{MODEL}@{CHAMPION}: {BUCKETS - CANARY_WEIGHT}, {MODEL}@{CANARY}: {CANARY_WEIGHT}}}",
        "    retry_safe: true",
    ]
    if any(part.version == SHADOW for part in present):
        # The shadow was trained for itself: its labels are to agree, its probabilities only roughly do.
        compare = "{label: exact, probabilities: {abs: 1}}"
        lines.append(f"    shadows: [{{version: {MODEL}@{SHADOW}, sample: {BUCKETS}, compare: {compare}}}]")
    return "\n".join(lines) + "\n"


def assemble(folder: Path, present: tuple[Part, ...], trained: Mapping[str, Path]) -> None:
    """Write the folder of models anew: the versions as trained, and routes.yaml."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in present:
        number = str(part.version)
        shutil.copytree(trained[part.program.name] / number, folder / MODEL / number)
    (folder / "routes.yaml").write_text(routes(present))
