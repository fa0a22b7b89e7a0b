"""One table of speed: alternating runs of several servers on the same requests, each run judged before it counts.

A run is void when the load's core was too busy to be the measure of anything; it is wrong when a request failed, when
the bytes that came cannot be right answers, or when the gateway counted other requests than the load. Either fails the
table. Every run is kept.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from bench.speed import counters, load
from bench.speed.cores import Spent, Watch
from bench.speed.requests import Requests, headers_of, mismatch
from bench.speed.servers import Server
from bench.speed.wire import Answer, ask_grpc, ask_http, post

# A load that keeps its core busier than that may itself be what is measured.
MAX_LOAD_BUSY: Final = 0.85
# So much of one core may others take: more, and the machine was not quiet.
MAX_OTHERS: Final = 0.15
HTTP: Final = "http"
GRPC: Final = "grpc"
_WARM_CLIENTS: Final = 32
_WARM_S: Final = 1


class Entry:
    """A server with what it is sent in one workload; `route` is what the gateway counts it under."""

    def __init__(self, server: Server, door: str, requests: Requests, *, path: str = "/", route: str = "") -> None:
        self.server = server
        self.route = route
        self._door = door
        self._requests = requests
        self._headers = [headers_of(requests, server.client.headers, at) for at in range(len(requests.bodies))]
        self._path = path
        self._whole = [
            post(server.http, path, body, headers) if door == HTTP else body
            for body, headers in zip(requests.bodies, self._headers, strict=True)
        ]
        self.sizes = (0, 0)

    def check(self) -> list[str]:
        """Ask for every answer of the set and say which are wrong; learn how many bytes right ones take."""
        answers = [self._ask(at) for at in range(len(self._whole))]
        self.sizes = (min(answer.size for answer in answers), max(answer.size for answer in answers))
        wrong = [mismatch(answer, self._requests, at) for at, answer in enumerate(answers)]
        return [f"{self.server.name}: {why}" for why in wrong if why]

    def send(self, clients: int, seconds: int, turn: int) -> load.Load:
        """Have the load program send the set for so long, beginning with another request each turn."""
        if self._door == HTTP:
            return load.wrk(self.server.http, self._whole, clients, seconds)
        start = turn % len(self._whole)
        messages = self._whole[start:] + self._whole[:start]
        headers = self._headers[start:] + self._headers[:start]
        return load.h2load(self.server.grpc, messages, headers, clients, seconds)

    def _ask(self, at: int) -> Answer:
        if self._door == HTTP:
            return ask_http(self.server.http, self._whole[at])
        return ask_grpc(self.server.grpc, self._whole[at], self._headers[at])


class Run(msgspec.Struct, frozen=True):
    """One run of one server: `grown` is what the gateway counted; `wrong` is why the run must not count."""

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int
    spent: Spent
    grown: dict[str, int] | None
    wrong: list[str]


class Cell(msgspec.Struct):
    """All runs of one workload with so many clients, by server, in rounds."""

    workload: str
    clients: int
    runs: dict[str, list[Run]]

    def rate(self, server: str) -> float:
        """Return the median rate of a server."""
        return statistics.median(run.rate for run in self.runs[server])

    def p50_ms(self, server: str) -> float:
        """Return the median of the runs' medians."""
        return statistics.median(run.p50_ms for run in self.runs[server])

    def p99_ms(self, server: str) -> float:
        """Return the median of the runs' 99th percentiles."""
        return statistics.median(run.p99_ms for run in self.runs[server])

    def cpu_us(self, server: str) -> float:
        """Return the median processor time that a server and its workers spent on a request, in microseconds.

        Other work on the machine hardly changes it.
        """
        return median_cpu_us((run.spent.server, run.rate) for run in self.runs[server])

    def ratios(self, server: str, other: str) -> list[float]:
        """Return how much faster a server was than another, round by round: a pair shares what the machine did."""
        return [ours.rate / its.rate for ours, its in zip(self.runs[server], self.runs[other], strict=True)]

    def ratio(self, server: str, other: str) -> float:
        """Return the median of those."""
        return statistics.median(self.ratios(server, other))


def median_cpu_us(runs: Iterable[tuple[float, float]]) -> float:
    """Return the median processor time of a request of runs with the server's share of its core and the rate."""
    spent = [share / rate for share, rate in runs if rate]
    return statistics.median(spent) * 1e6 if spent else math.nan


def measure(workload: str, entries: Mapping[str, Entry], rounds: Mapping[int, int], *, seconds: int) -> list[Cell]:
    """Check all answers, run every server in turn, round after round, and check the answers again.

    `rounds` says with how many clients to measure, and in how many rounds each.
    Raises ValueError when an answer is wrong before the runs.
    """
    wrong = [why for entry in entries.values() for why in entry.check()]
    if wrong:
        raise ValueError(f"{workload}: {wrong[:3]}")
    for entry in entries.values():
        entry.send(_WARM_CLIENTS, _WARM_S, 0)
    cells = [Cell(workload, clients, {name: [] for name in entries}) for clients in rounds]
    for cell in cells:
        for turn in range(rounds[cell.clients]):
            for name in rotated(list(entries), turn):
                cell.runs[name].append(_run(entries[name], cell.clients, seconds, turn))
        print(line(cell), flush=True)
    for name, entry in entries.items():
        for why in entry.check():
            _blame(cells, name, f"after the runs: {why}")
    return cells


def rotated(names: list[str], turn: int) -> list[str]:
    """Return the names beginning with another each turn, so that none always follows the same."""
    start = turn % len(names)
    return names[start:] + names[:start]


def line(cell: Cell) -> str:
    """Return a line about a cell for the terminal."""
    rates = ", ".join(f"{name} {cell.rate(name):,.0f}/s ({cell.cpu_us(name):,.0f} us)" for name in cell.runs)
    wrong = sum(bool(run.wrong) for runs in cell.runs.values() for run in runs)
    return f"  {cell.workload}, {cell.clients} clients: {rates}" + (f"  ({wrong} runs do not count)" if wrong else "")


def _run(entry: Entry, clients: int, seconds: int, turn: int) -> Run:
    metrics = entry.server.metrics
    before = counters.settled(metrics, entry.route) if metrics else None
    with counters.Scraper(metrics, entry.server.client.scrape_s):
        watch = Watch(entry.server.pid)
        seen = entry.send(clients, seconds, turn)
        spent = watch.spent()
    grown: dict[str, int] | None = None
    if metrics and before is not None:
        after = counters.settled(metrics, entry.route)
        grown = {outcome: after[outcome] - before[outcome] for outcome in after if after[outcome] != before[outcome]}
    wrong = faults(seen, clients, entry.sizes, spent, grown)
    return Run(round(seen.rate, 2), seen.p50_ms, seen.p99_ms, seen.requests, spent, grown, wrong)


def faults(
    seen: load.Load, clients: int, sizes: tuple[int, int], spent: Spent, grown: Mapping[str, int] | None
) -> list[str]:
    """Return why a run must not count: none when it may."""
    wrong = []
    if spent.load > MAX_LOAD_BUSY:
        wrong.append(f"void: the load was {spent.load:.0%} busy")
    if seen.failed or not seen.requests:
        wrong.append(f"{seen.failed} requests failed, {seen.requests} were answered")
    least, most = sizes
    if not seen.requests * least <= seen.bytes <= (seen.requests + clients) * most:
        wrong.append(f"{seen.bytes} bytes are not {seen.requests} answers of {least} to {most}")
    if grown is not None:
        difference = counters.difference(grown, seen.requests, clients)
        if difference:
            wrong.append(difference)
    return wrong


def _blame(cells: Sequence[Cell], name: str, why: str) -> None:
    for cell in cells:
        last = cell.runs[name][-1]
        cell.runs[name][-1] = msgspec.structs.replace(last, wrong=[*last.wrong, why])
