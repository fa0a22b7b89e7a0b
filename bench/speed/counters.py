"""What the gateway counted over a run, against what the load program counted: they must agree to the request.

The rule: a load program counts whole answers only, and leaves at most one request a connection unanswered when its
time is over. So over a run `ok` must have grown by at least the requests counted, all outcomes together by at most
that and the connections, and nothing but `ok` and `cancelled` may have grown.
"""

import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.metrics import DROPPED_ACCESS_LOG, DROPPED_SHADOW

_READ_S: Final = 10
_SETTLED_S: Final = 10.0
_LOOK_S: Final = 0.02
_QUIET_LOOKS: Final = 2
_GOOD: Final = frozenset({"ok", "cancelled"})


def read(metrics: str) -> str:
    """Return the exposition."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=_READ_S) as answer:
        return bytes(answer.read()).decode()


def outcomes(exposition: str, route: str) -> Counter[str]:
    """Return the requests of a route by outcome."""
    counted: Counter[str] = Counter()
    for name, labels, value in samples(exposition):
        if name == "turnout_requests_total" and labels["route"] == route:
            counted[labels["outcome"]] += int(value)
    return counted


def buckets(exposition: str, name: str, **labels: str) -> dict[float, float]:
    """Return a histogram's cumulated counts by upper bound, in seconds."""
    found: defaultdict[float, float] = defaultdict(float)
    for sample, its, value in samples(exposition):
        if sample == f"{name}_bucket" and all(its.get(label) == text for label, text in labels.items()):
            found[float(its["le"])] += value
    return dict(sorted(found.items()))


def total(exposition: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of this name that carry these labels."""
    return sum(
        value
        for sample, its, value in samples(exposition)
        if sample == name and all(its.get(label) == text for label, text in labels.items())
    )


def samples(exposition: str) -> list[tuple[str, Mapping[str, str], float]]:
    """Return every sample of an exposition."""
    families = text_string_to_metric_families(exposition)
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def settled(metrics: str, route: str) -> Counter[str]:
    """Return the outcomes of a route once they stand still: requests without a caller may still be counted."""
    until_s = time.monotonic() + _SETTLED_S
    last, quiet = outcomes(read(metrics), route), 0
    while quiet < _QUIET_LOOKS and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        now = outcomes(read(metrics), route)
        quiet = quiet + 1 if now == last else 0
        last = now
    return last


class Features(msgspec.Struct, frozen=True):
    """What shows that the features of a gateway were at work."""

    requests: int
    canary: int
    shadow_copies: int
    shadow_dropped: int
    log_lines: int
    log_dropped: int

    @property
    def unlogged(self) -> int:
        """Requests that are neither a line of the access log nor counted as dropped."""
        return self.requests - self.log_lines - self.log_dropped


def features(exposition: str, access_log: bytes) -> Features:
    """Return what an exposition and an access log of every request tell."""
    return Features(
        requests=int(total(exposition, "turnout_requests_total")),
        canary=int(total(exposition, "turnout_requests_total", arm="canary")),
        shadow_copies=int(total(exposition, "turnout_shadow_requests_total", outcome="ok")),
        shadow_dropped=int(total(exposition, "turnout_dropped_total", what=DROPPED_SHADOW)),
        log_lines=access_log.count(b"\n"),
        log_dropped=int(total(exposition, "turnout_dropped_total", what=DROPPED_ACCESS_LOG)),
    )


def features_at_work(metrics: str, access_log: Path) -> Features:
    """Return the features of a gateway that has nothing to do any more, once its log is written."""
    until_s = time.monotonic() + _SETTLED_S
    found = features(read(metrics), access_log.read_bytes())
    while found.unlogged and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        found = features(read(metrics), access_log.read_bytes())
    return found


def difference(grown: Mapping[str, int], counted: int, connections: int) -> str | None:
    """Say how the gateway's growth breaks the rule above; None when it keeps it."""
    if any(count and outcome not in _GOOD for outcome, count in grown.items()):
        return f"outcomes {dict(grown)}"
    if grown.get("ok", 0) < counted:
        return f"the load counted {counted} answers, the gateway {grown.get('ok', 0)}"
    if sum(grown.values()) > counted + connections:
        return f"the gateway counted {sum(grown.values())} requests, the load {counted} over {connections} connections"
    return None


class Scraper:
    """Reads /metrics every so often while the block runs, as Prometheus does; never when `every_s` is 0."""

    def __init__(self, metrics: str | None, every_s: float) -> None:
        self._metrics = metrics
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.reads = 0

    def __enter__(self) -> Self:
        """Begin to read."""
        if self._metrics is not None and self._every_s:
            self._thread = threading.Thread(target=self._read, args=(self._metrics,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_READ_S)

    def _read(self, metrics: str) -> None:
        while True:
            read(metrics)
            self.reads += 1
            if self._stop.wait(self._every_s):
                return
