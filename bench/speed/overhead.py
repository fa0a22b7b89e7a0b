"""What the gateway adds to a model's own time, with one client: alone, and while another model runs flat out beside.

The figure is the gateway's own histogram `turnout_overhead_seconds` over the run: the whole time of a request inside
the gateway, outside the adapter. Beside it stands what the client saw less the mean time of the model: that holds the
kernel's part and the client's own, too.
"""

import math
import threading
from collections.abc import Mapping

import msgspec

from bench.speed import counters
from bench.speed.cores import Spent, Watch
from bench.speed.table import Entry

_BESIDE_CLIENTS = 4
_LONGER_S = 2
_FLAT_OUT_S = 1.0


class Overhead(msgspec.Struct, frozen=True):
    """Microseconds: quantiles of the overhead, of the client's latency less the model's mean time, and that mean."""

    p50_us: float
    p99_us: float
    client_p50_us: float
    client_p99_us: float
    model_us: float
    requests: int
    beside_requests: int
    spent: Spent


def overhead(entry: Entry, seconds: int, beside: Entry | None = None) -> Overhead:
    """Measure with one client; `beside` is sent as much as it can take meanwhile."""
    metrics = entry.server.metrics
    assert metrics is not None
    others: list[int] = []
    flat_out = threading.Thread(target=lambda: others.append(_flat_out(beside, seconds)))
    flat_out.start()
    if beside is not None:
        threading.Event().wait(_FLAT_OUT_S)
    before = counters.read(metrics)
    with counters.Scraper(metrics, entry.server.client.scrape_s):
        watch = Watch(entry.server.pid)
        seen = entry.send(1, seconds, 0)
        spent = watch.spent()
    after = counters.read(metrics)
    flat_out.join()
    grown = difference(
        *(counters.buckets(text, "turnout_overhead_seconds", route=entry.route) for text in (before, after))
    )
    model_us = _mean_us(before, after, entry.route)
    return Overhead(
        p50_us=quantile(grown, 0.50) * 1e6,
        p99_us=quantile(grown, 0.99) * 1e6,
        client_p50_us=seen.p50_ms * 1000 - model_us,
        client_p99_us=seen.p99_ms * 1000 - model_us,
        model_us=model_us,
        requests=seen.requests,
        beside_requests=others[0],
        spent=spent,
    )


def difference(before: Mapping[float, float], after: Mapping[float, float]) -> dict[float, float]:
    """Return by how much each bucket grew."""
    return {bound: count - before.get(bound, 0) for bound, count in after.items()}


def quantile(cumulated: Mapping[float, float], share: float) -> float:
    """Return a quantile of a histogram as Prometheus does: straight within a bucket; infinite beyond the last bound."""
    wanted = share * max(cumulated.values(), default=0)
    if not wanted:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in sorted(cumulated.items()):
        if count >= wanted:
            return bound if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return math.inf


def _flat_out(beside: Entry | None, seconds: int) -> int:
    return 0 if beside is None else beside.send(_BESIDE_CLIENTS, seconds + _LONGER_S, 0).requests


def _mean_us(before: str, after: str, model: str) -> float:
    name = "turnout_predict_duration_seconds"
    spent, calls = (
        counters.total(after, f"{name}_{part}", model=model) - counters.total(before, f"{name}_{part}", model=model)
        for part in ("sum", "count")
    )
    return spent / calls * 1e6 if calls else math.nan
