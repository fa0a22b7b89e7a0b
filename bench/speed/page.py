"""Writes docs/performance.md and its pictures from the committed results: `python -m bench.speed.page`.

Every number of the page comes out of a JSON file in bench/results; a test compares. The benches write it at the end
of a whole run.
"""

import statistics
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.campaign.harness import RESULTS, ROOT
from bench.counted import BARE
from bench.instructions import ALLOWED, Budget, recorded
from bench.speed.picture import Group, groups_of, held_of, picture
from bench.speed.table import median_cpu_us

DOCS: Final = ROOT / "docs"
PAGE: Final = DOCS / "performance.md"
TABLES: Final = {"speed": "speed.svg", "peers": "speed-peers.svg"}
_TITLES: Final = {
    "speed": "Turnout on one core, 32 clients, beside bare handlers",
    "peers": "Turnout on one core, 32 clients, beside other servers",
}
_CLIENTS: Final = 32
_NONE: Final = "Not measured on a quiet machine yet."
_PAGE: Final = """\
# Performance

<!-- Made by `python -m bench.speed.page` from bench/results; a test compares. -->

What one core of server does, measured from outside: the server with all its processes on one core, the load (wrk for
HTTP, h2load for gRPC) on the other. Runs of all servers alternate, round after round; a table has medians, and the
JSON every run. A ratio is the median of the rounds' ratios.

A run counts only if

- the load kept its core no more than 85 % busy, else the load may be what is measured;
- every request was answered well, the bytes that came are those of right answers, and before and after the runs each
  answer of the set equals the engine's own;
- the gateway's request counter grew by the requests that the load counted: by no fewer, and by no more than those and
  one for each connection, which may be under way when the time is over;

and a table counts only if others took less than 0.15 of a core meanwhile. The rows of requests differ: wrk sends 64
(8 of 1 MiB) in turn; h2load sends one a process, so eight run side by side, and with one client the row changes each
round.

"All features on" is [a committed configuration](../bench/configs/all-features-on): a split of 9,500 to 500 by a sticky
header that is sent, a shadow of one request in ten, every answer in the access log, a deadline and a traceparent on
each request, bounds of admission, and metrics read each second. "Features off" has none of these, and stands beside it.

## Against bare handlers

    make bench

A bare handler is what one would write for one model, and nothing else: raw ASGI on uvicorn with uvloop and httptools,
orjson and ONNX Runtime on one thread; grpc.aio with the same; for tensors of 1 MiB an ASGI echo of the bytes.

{speed}

## Against other servers

    make bench-peers

The same ONNX model and the same rows behind MLServer, KServe's Python SDK, BentoML and LitServe, each in an environment
of its own with [pinned requirements and settings](../bench/peers): one process that runs the model, debug and payload
logs off. KServe logs the latency of each request as it comes; the row with that log off stands beside it.

{peers}

## Instructions of one request

    .venv/bin/python -m bench.instructions

Counted by callgrind in one process, without the kernel's part; hardly moved by what else a machine does. `make test`
fails when a kind of request takes more than {allowed:.2f} of its count where Python, ONNX Runtime and CPU family are
the recorded ones, and holds it against the bare handler's count elsewhere. scikit-learn's is counted by the command
only.

{instructions}
"""


def pictures() -> dict[Path, str]:
    """Return every picture that there are results for."""
    drawn = {}
    for name, file in TABLES.items():
        document = result(name)
        if document is not None:
            title, under = _TITLES[name], _facts(document)
            groups, held = groups_of(document, _CLIENTS), held_of(document)
            drawn[DOCS / file] = picture(title, under, groups, held, linear=name == "peers")
    return drawn


def page() -> str:
    """Return the page."""
    return _PAGE.format(
        speed=_section("speed"), peers=_section("peers"), instructions=_instructions(recorded()), allowed=ALLOWED
    )


def write() -> None:
    """Write the page and its pictures."""
    PAGE.write_text(page())
    for path, text in pictures().items():
        path.write_text(text)


def result(name: str) -> dict[str, Any] | None:
    """Return a committed table; None when there is none."""
    path = RESULTS / f"{name}.json"
    document: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return document if "table" in document.get("notes", {}) else None


def _section(name: str) -> str:
    document = result(name)
    if document is None:
        return _NONE
    held = ["| figure | measured | bar | |", "|---|---|---|---|"]
    for figure in document["figures"]:
        measured = figure["value"]
        shown = f"{measured:.4g}" if isinstance(measured, float) else str(measured)
        bar = figure["bar"].replace("<=", "≤").replace(">=", "≥").replace("==", "=")
        held.append(f"| {figure['name']} | {shown} | {bar} | {'reached' if figure['reached'] else 'not reached'} |")
    counts = sorted({cell["clients"] for cell in document["notes"]["table"]})
    tables = [_rates(document, count) for count in counts]
    source = f"From [{name}.json](../bench/results/{name}.json): {_facts(document)}."
    return "\n\n".join([f"![{_TITLES[name]}]({TABLES[name]})", "\n".join(held), *tables, source])


def _rates(document: dict[str, Any], clients: int) -> str:
    crowd = "1 client" if clients == 1 else f"{clients} clients"
    lines = [
        f"Requests a second, median and range of all runs; medians of the latencies and of the server's CPU, {crowd}:",
        "",
        "| workload | server | median | range | p50 ms | p99 ms | CPU µs a request |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell, group in zip(_cells(document, clients), groups_of(document, clients), strict=True):
        lines += _lines(cell, group)
    return "\n".join(lines)


def _cells(document: dict[str, Any], clients: int) -> list[dict[str, Any]]:
    return [cell for cell in document["notes"]["table"] if cell["clients"] == clients]


def _lines(cell: dict[str, Any], group: Group) -> list[str]:
    lines = []
    for bar in group.bars:
        runs = cell["runs"][bar.label]
        p50, p99 = (statistics.median(run[key] for run in runs) for key in ("p50_ms", "p99_ms"))
        cpu_us = median_cpu_us((run["spent"]["server"], run["rate"]) for run in runs)
        lines.append(
            f"| {group.title} | {bar.label} | {bar.median:,.0f} | {min(bar.runs):,.0f} to {max(bar.runs):,.0f} "
            f"| {p50:.2f} | {p99:.2f} | {cpu_us:,.0f} |"
        )
    return lines


def _instructions(budget: Budget) -> str:
    bare = budget.instructions[BARE]
    place = budget.place
    lines = ["| request | instructions | of bare |", "|---|---|---|"]
    lines += [f"| {kind} | {count:,} | {count / bare:.2f} |" for kind, count in budget.instructions.items()]
    said = f"Python {place.python}, ONNX Runtime {place.onnxruntime}, {place.cpu_family}, {budget.valgrind}"
    return "\n".join([*lines, "", f"From [instructions.json](../bench/results/instructions.json): {said}."])


def _facts(document: dict[str, Any]) -> str:
    facts = document["facts"]
    return (
        f"commit {facts['commit'][:12]}, {facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, "
        f"{facts['started'][:10]}"
    )


if __name__ == "__main__":
    write()
    sys.exit(0)
