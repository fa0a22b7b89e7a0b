"""Every metric of the gateway, declared here with its labels (DESIGN 7). Label values come from the snapshot only.

A process writes its numbers to files of its slot under STATE/run/metrics; `exposition.py` merges all slots into one
exposition. What the request path touches is bound to its labels beforehand: no look-up by label there. All numbers
are written by the loop's thread, except where a method says otherwise. None fails or delays a request because it
cannot be stored: it is kept in memory, or counted as `_other`, and that is counted and said once.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.observe.class_ledger import ClassLedger, shares
from gateway.observe.predicted import Predicted, PredictedClasses, PredictedValues, bounded, is_class, is_value
from gateway.observe.value_file import Distribution, Number, ValueFile
from turnout.core import clock
from turnout.core.ids import VersionRef
from turnout.core.signature import TensorSpec
from turnout.core.status import Outcome

_log = logging.getLogger(__name__)

# So long the ledger of classes is left alone after it could not be written: each try costs a request some time.
_CLAIM_AGAIN_S: Final = 1.0
_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0),
)
_OVERHEAD_SECONDS: Final = (0.00005, 0.0001, 0.00015, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)


class Family(msgspec.Struct, frozen=True):
    """A metric: `kind` is the stem of its file, which tells prometheus-client how slots are merged."""

    kind: str
    name: str
    labels: tuple[str, ...]
    documentation: str
    bounds: tuple[float, ...] = ()


REQUESTS: Final = Family(
    "counter",
    "turnout_requests_total",
    ("route", "model", "version", "arm", "protocol", "outcome"),
    "Requests, once each: labels of the version that was picked and the outcome of that attempt.",
)
FALLBACKS: Final = Family(
    "counter",
    "turnout_fallbacks_total",
    ("route", "from_version", "to", "reason", "outcome"),
    "Rescues tried after the picked version failed.",
)
REQUEST_SECONDS: Final = Family(
    "histogram",
    "turnout_request_duration_seconds",
    ("route", "model", "version", "arm"),
    "Whole time of a request inside the gateway.",
    _SECONDS,
)
PREDICT_SECONDS: Final = Family(
    "histogram", "turnout_predict_duration_seconds", ("model", "version"), "Time of one call in the adapter.", _SECONDS
)
OVERHEAD_SECONDS: Final = Family(
    "histogram",
    "turnout_overhead_seconds",
    ("route",),
    "Time of a request inside the gateway outside the adapter.",
    _OVERHEAD_SECONDS,
)
BATCH_ROWS: Final = Family(
    "histogram", "turnout_batch_rows", ("model", "version"), "Rows of one call that the model answered.", _ROWS
)
QUEUE_ROWS: Final = Family("gauge_livesum", "turnout_queue_rows", ("model", "version"), "Rows waiting for the model.")
IN_FLIGHT: Final = Family("gauge_livesum", "turnout_in_flight", ("route",), "Requests inside the gateway.")
PREDICTED_CLASS: Final = Family(
    "counter",
    "turnout_predicted_class_total",
    ("model", "version", "output", "class"),
    "Predicted classes by row, of answers by the split and of shadows; the rarer ones as _other.",
)
PREDICTED_VALUE: Final = Family(
    "histogram",
    "turnout_predicted_value",
    ("model", "version", "output"),
    "Predicted finite values by row, of answers by the split and of shadows.",
)
SHADOW_REQUESTS: Final = Family(
    "counter", "turnout_shadow_requests_total", ("route", "version", "outcome"), "Copies that a shadow ran."
)
SHADOW_COMPARISONS: Final = Family(
    "counter",
    "turnout_shadow_comparisons_total",
    ("route", "version", "verdict"),
    "Rows of a shadow's answers compared with the champion's.",
)
DROPPED: Final = Family(
    "counter", "turnout_dropped_total", ("what",), "Work beside the request path that was dropped at its bound."
)
WORKER_RESTARTS: Final = Family(
    "counter", "turnout_worker_restarts_total", ("model", "version"), "Restarts of a model's process."
)
SNAPSHOT_GENERATION: Final = Family(
    "gauge_livemin", "turnout_snapshot_generation", (), "Generation of the snapshot that every process obeys."
)
LOAD_SECONDS: Final = Family(
    "gauge_livemax", "turnout_model_load_seconds", ("model", "version"), "Time from the start of a load until ready."
)
# Three more than DESIGN 7 asks for: the protocol's statistics need two, summed over processes like all else; the third
# tells of versions that rest.
STATISTICS_SECONDS: Final = Family(
    "counter",
    "turnout_statistics_seconds_total",
    ("model", "version", "part"),
    "Summed time for the statistics RPC: failed requests, and the queue, input and output parts.",
)
LAST_ANSWER: Final = Family(
    "gauge_max", "turnout_last_answer_timestamp_seconds", ("model", "version"), "Unix time of the last answer."
)
RESTING: Final = Family(
    "gauge_livesum",
    "turnout_resting",
    ("model", "version"),
    "Processes in which the version rests because its calls failed one after another.",
)

DROPPED_ACCESS_LOG: Final = "access_log"
DROPPED_LOG: Final = "log"
DROPPED_METRICS: Final = "metrics"
DROPPED_SHADOW: Final = "shadow"


class RouteMetrics:
    """Numbers of a route."""

    __slots__ = ("in_flight", "overhead")

    def __init__(self, in_flight: Number, overhead: Distribution) -> None:
        self.in_flight = in_flight
        self.overhead = overhead


class ArmMetrics:
    """Numbers of one arm of a route: a version and why it was picked."""

    __slots__ = ("_labels", "_metrics", "_outcomes", "duration")

    def __init__(self, metrics: "Metrics", labels: tuple[str, str, str, str]) -> None:
        self._metrics = metrics
        self._labels = labels
        self._outcomes: dict[tuple[str, Outcome], Number] = {}
        self.duration = metrics.distribution(REQUEST_SECONDS, labels)

    def requests(self, protocol: str, outcome: Outcome) -> Number:
        """Return the counter of one outcome."""
        counter = self._outcomes.get((protocol, outcome))
        if counter is None:
            counter = self._metrics.number(REQUESTS, (*self._labels, protocol, outcome.value))
            self._outcomes[protocol, outcome] = counter
        return counter


class VersionMetrics:
    """Numbers of a version."""

    __slots__ = (
        "batch_rows",
        "fail_seconds",
        "input_seconds",
        "last_answer",
        "load_seconds",
        "output_seconds",
        "predict",
        "queue_rows",
        "queue_seconds",
        "resting",
    )

    def __init__(self, metrics: "Metrics", ref: VersionRef) -> None:
        labels = (ref.model, str(ref.number))
        self.predict = metrics.distribution(PREDICT_SECONDS, labels)
        self.batch_rows = metrics.distribution(BATCH_ROWS, labels)
        self.queue_rows = metrics.number(QUEUE_ROWS, labels)
        self.load_seconds = metrics.number(LOAD_SECONDS, labels)
        self.last_answer = metrics.number(LAST_ANSWER, labels)
        self.resting = metrics.number(RESTING, labels)
        self.fail_seconds = metrics.number(STATISTICS_SECONDS, (*labels, "fail"))
        self.queue_seconds = metrics.number(STATISTICS_SECONDS, (*labels, "queue"))
        self.input_seconds = metrics.number(STATISTICS_SECONDS, (*labels, "input"))
        self.output_seconds = metrics.number(STATISTICS_SECONDS, (*labels, "output"))


class Metrics:
    """The numbers of one process. `slot` tells its files from those of the machine's other processes."""

    def __init__(self, directory: Path, slot: int | str) -> None:
        self.directory = directory
        self._slot = slot
        self._files: dict[str, ValueFile] = {}
        self._ledger = ClassLedger(directory)
        self._arms: dict[tuple[str, str, str, str], ArmMetrics] = {}
        self._routes: dict[str, RouteMetrics] = {}
        self._versions: dict[VersionRef, VersionMetrics] = {}
        self._numbers: dict[tuple[str, tuple[str, ...]], Number] = {}
        self._claim_at_s = 0.0
        self._lost: Number | None = None
        self._said = False
        self._lost = self.dropped(DROPPED_METRICS)  # while there is room for it

    def route(self, route: str) -> RouteMetrics:
        """Return the numbers of a route of the snapshot, or of no route ("")."""
        found = self._routes.get(route)
        if found is None:
            found = RouteMetrics(self.number(IN_FLIGHT, (route,)), self.distribution(OVERHEAD_SECONDS, (route,)))
            self._routes[route] = found
        return found

    def arm(self, route: str, ref: VersionRef | None, arm: str) -> ArmMetrics:
        """Return the numbers of an arm; without a version its labels are empty."""
        labels = (route, ref.model if ref else "", str(ref.number) if ref else "", arm)
        found = self._arms.get(labels)
        if found is None:
            found = self._arms[labels] = ArmMetrics(self, labels)
        return found

    def version(self, ref: VersionRef) -> VersionMetrics:
        """Return the numbers of a version."""
        found = self._versions.get(ref)
        if found is None:
            found = self._versions[ref] = VersionMetrics(self, ref)
        return found

    def predicted(self, ref: VersionRef, outputs: Sequence[TensorSpec], bounds: Sequence[float]) -> Predicted:
        """Return counters of what a version predicts, by its presented outputs; `bounds` are its model's buckets."""
        classes = [spec.name for spec in outputs if is_class(spec)]
        counters: list[tuple[str, PredictedClasses | PredictedValues]] = [
            (name, self._classes(ref, name, share)) for name, share in zip(classes, shares(len(classes)), strict=True)
        ]
        for spec in outputs:
            if is_value(spec):
                labels = (ref.model, str(ref.number), spec.name)
                counters.append((spec.name, PredictedValues(self.distribution(PREDICTED_VALUE, labels, bounds))))
        return Predicted(counters)

    def shadow_requests(self, route: str, ref: VersionRef, outcome: Outcome) -> Number:
        """Return the counter of a shadow's copies that ended so."""
        return self.number(SHADOW_REQUESTS, (route, str(ref), outcome.value))

    def shadow_rows(self, route: str, ref: VersionRef, verdict: str) -> Number:
        """Return the counter of a shadow's rows with this verdict."""
        return self.number(SHADOW_COMPARISONS, (route, str(ref), verdict))

    def fallbacks(self, route: str, failed: VersionRef, to: str, reason: Outcome, outcome: Outcome) -> Number:
        """Return the counter of rescues; `to` is champion, previous or value."""
        return self.number(FALLBACKS, (route, str(failed), to, reason.value, outcome.value))

    def dropped(self, what: str) -> Number:
        """Return the counter of dropped work; each kind has one dropping thread."""
        return self.number(DROPPED, (what,))

    def snapshot_generation(self) -> Number:
        """Return the gauge of the obeyed generation; there is none before the first snapshot."""
        return self.number(SNAPSHOT_GENERATION, ())

    def worker_restarts(self, ref: VersionRef) -> Number:
        """Return the counter of restarts of a version's worker; the parent counts them, in a slot of its own."""
        return self.number(WORKER_RESTARTS, (ref.model, str(ref.number)))

    def number(self, family: Family, labels: tuple[str, ...]) -> Number:
        """Return the counter or gauge of a family with these label values."""
        key = (family.name, labels)
        found = self._numbers.get(key)
        if found is None:
            named = dict(zip(family.labels, labels, strict=True))
            found = Number(self._file(family.kind), family.name, named, family.documentation)
            self._numbers[key] = found
        return found

    def distribution(
        self, family: Family, labels: tuple[str, ...], bounds: Sequence[float] | None = None
    ) -> Distribution:
        """Return the histogram of a family with these label values; `bounds` where they are not the family's own."""
        named = dict(zip(family.labels, labels, strict=True))
        chosen = family.bounds if bounds is None else bounded(bounds)
        return Distribution(self._file(family.kind), family.name, named, family.documentation, chosen)

    def close(self) -> None:
        """Close the files; the numbers stay for the scrape."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _classes(self, ref: VersionRef, output: str, share: int) -> PredictedClasses:
        labels = (ref.model, str(ref.number), output)
        return PredictedClasses(
            lambda name: self.number(PREDICTED_CLASS, (*labels, name)),
            lambda name: self._claim(ref, output, name, share),
            share,
        )

    def _claim(self, ref: VersionRef, output: str, name: str, share: int) -> frozenset[str] | None:
        """Ask the ledger for a class; None where it could not be written just now."""
        if clock.monotonic_s() < self._claim_at_s:
            self._count_lost()
            return None
        try:
            return self._ledger.claim(str(ref), output, name, share)
        except OSError as error:
            self._claim_at_s = clock.monotonic_s() + _CLAIM_AGAIN_S
            self._lose(error)
            return None

    def _lose(self, error: OSError) -> None:
        """Count what could not be stored, and say so once."""
        self._count_lost()
        if not self._said:
            self._said = True
            _log.error("metrics cannot be stored under %s; /metrics lacks some from now on: %s", self.directory, error)

    def _count_lost(self) -> None:
        if self._lost is not None:
            self._lost.add()

    def _file(self, kind: str) -> ValueFile:
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = ValueFile(self.directory / f"{kind}_{self._slot}.db", self._lose)
        return file
