"""The numbers of the protocol's statistics, summed over all slots: the same files as the exposition reads."""

from collections import defaultdict
from pathlib import Path

import msgspec

from gateway.observe import metrics
from gateway.observe.exposition import merged
from turnout.core.status import Outcome


class Counted(msgspec.Struct):
    """What all processes counted of one version since start: numbers of events, and seconds by part."""

    answered: int = 0
    failed: int = 0
    calls: int = 0
    answered_calls: int = 0
    rows: int = 0
    predict_s: float = 0.0
    request_s: float = 0.0
    success_s: float = 0.0
    fail_s: float = 0.0
    queue_s: float = 0.0
    input_s: float = 0.0
    output_s: float = 0.0
    last_answer_s: float = 0.0


def read(directory: Path) -> dict[tuple[str, str], Counted]:
    """Return the numbers by model and version number."""
    found: defaultdict[tuple[str, str], Counted] = defaultdict(Counted)
    families = [*merged(directory, "counter"), *merged(directory, "histogram"), *merged(directory, "gauge_max")]
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if labels.get("model") and "version" in labels:
                _add(found[labels["model"], labels["version"]], sample.name, labels, sample.value)
    for counted in found.values():
        # Not stored: what was no failure was a success.
        counted.success_s = max(0.0, counted.request_s - counted.fail_s)
    return dict(found)


def _add(counted: Counted, name: str, labels: dict[str, str], value: float) -> None:
    if name == metrics.REQUESTS.name:
        if labels["outcome"] == Outcome.OK:
            counted.answered += int(value)
        else:
            counted.failed += int(value)
    elif name == f"{metrics.REQUEST_SECONDS.name}_sum":
        counted.request_s += value
    elif name == f"{metrics.BATCH_ROWS.name}_sum":
        counted.rows += int(value)
    elif name == f"{metrics.BATCH_ROWS.name}_count":
        counted.answered_calls += int(value)
    elif name == f"{metrics.PREDICT_SECONDS.name}_sum":
        counted.predict_s += value
    elif name == f"{metrics.PREDICT_SECONDS.name}_count":
        counted.calls += int(value)
    elif name == metrics.LAST_ANSWER.name:
        counted.last_answer_s = max(counted.last_answer_s, value)
    elif name == metrics.STATISTICS_SECONDS.name:
        part = f"{labels['part']}_s"
        setattr(counted, part, getattr(counted, part) + value)
