"""Counts what the tour's client saw: requests, latencies and answers by version and protocol. Judges nothing."""

import math
from collections import Counter, defaultdict
from typing import Final

import numpy as np

from models.flight_delay.wire import Answers

PROTOCOLS: Final = ("http", "grpc")
# Standard normal quantile of a two-sided interval of 95 %.
Z95: Final = 1.959964


class Tally:
    """Everything that came back, flight by flight.

    Arrays have one element a flight: `version` that answered by the split (0: none yet), its `label` and `late`.
    """

    def __init__(self, flights: int) -> None:
        self.version = np.zeros(flights, np.int64)
        self.label = np.zeros(flights, np.int64)
        self.late = np.full(flights, math.nan)
        self.requests: Counter[int] = Counter()
        self.rows: Counter[int] = Counter()
        self.pinned: Counter[int] = Counter()
        self.latencies_ms: dict[str, list[float]] = {protocol: [] for protocol in PROTOCOLS}
        self.version_latencies_ms: dict[int, list[float]] = defaultdict(list)
        self.repeated: Counter[int] = Counter()
        self.repeated_equal: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()

    def answered(self, start: int, version: int, protocol: str, answers: Answers, latency_ms: float) -> None:
        """Count an answer that the split gave to the flights from `start` on."""
        stop = start + len(answers.labels)
        self.version[start:stop] = version
        self.label[start:stop] = answers.labels
        self.late[start:stop] = answers.late
        self.requests[version] += 1
        self.rows[version] += stop - start
        self.latencies_ms[protocol].append(latency_ms)
        self.version_latencies_ms[version].append(latency_ms)

    def compared(self, version: int, first: Answers, again: Answers) -> None:
        """Count flights that `version` answered and that were then asked of the champion as well."""
        self.repeated[version] += len(first.labels)
        self.repeated_equal[version] += int((first.labels == again.labels).sum())

    def failed(self, what: str) -> None:
        """Count a request without an answer."""
        self.failures[what] += 1

    @property
    def total_requests(self) -> int:
        """Requests that the split answered."""
        return self.requests.total()

    @property
    def total_rows(self) -> int:
        """Flights that the split answered."""
        return self.rows.total()


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of measured values; NaN without any."""
    return float(np.quantile(np.asarray(values), share)) if values else math.nan


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's formula; the whole of [0, 1] without any trial."""
    if not total:
        return 0.0, 1.0
    share = count / total
    spread = Z95 * math.sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2))
    middle = share + Z95**2 / (2 * total)
    scale = 1 + Z95**2 / total
    return (middle - spread) / scale, (middle + spread) / scale


def auc(late: "np.typing.NDArray[np.float64]", truth: "np.typing.NDArray[np.int64]") -> float:
    """Return the area under the ROC curve, ties counted half; NaN unless both classes are there."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return math.nan
    values, inverse, counts = np.unique(late, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    assert len(values) == len(counts)
    return float((ranks[truth == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
