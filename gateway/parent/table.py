"""The start-up table: each model's version, runtime, state and reason. Prints, decides nothing."""

import sys
from collections.abc import Mapping
from typing import IO, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnout.core.report import VersionReport, VersionState
from turnout.core.snapshot import Snapshot

_COLOURS: Final = {
    VersionState.READY: "green",
    VersionState.LOADING: "yellow",
    VersionState.LOST: "red",
    VersionState.FAILED: "red",
}
_UNTRIED: Final = VersionReport(VersionState.LOADING)


def print_table(snapshot: Snapshot, versions: Mapping[str, VersionReport], file: IO[str] = sys.stderr) -> None:
    """Print one line a version, and one for each folder that could not be read."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("model", "version", "runtime", "state", "reason"):
        table.add_column(name, overflow="fold")
    for entry in snapshot.versions:
        report = versions.get(str(entry.ref), _UNTRIED)
        table.add_row(
            entry.model,
            str(entry.number),
            str(entry.runtime),
            Text(report.state, _COLOURS[report.state]),
            Text(report.reason),
        )
    for name, reason in sorted(snapshot.problems.items()):
        model, _, number = name.partition("@")
        table.add_row(Text(model), number, "", Text("refused", "red"), Text(reason))
    Console(file=file).print(table if table.row_count else "no models")
