"""One JSON line a request (docs/reference/access-log.md), sampled; it drops and counts, it never waits."""

import logging
import os
import time
from collections.abc import Callable
from typing import Final
from zlib import crc32

import msgspec

from gateway.observe.line_writer import LineWriter
from gateway.observe.metrics import DROPPED_ACCESS_LOG, Metrics
from turnout.core.status import Outcome
from turnout.core.traceparent import trace_id

_LOG: Final = logging.getLogger(__name__)

ALL: Final = 10_000
_MODE: Final = 0o640
_LONGEST_ROUTE: Final = 128
_LONGEST_ERROR: Final = 512
_ENCODER: Final = msgspec.json.Encoder()


def open_log(path: str, otherwise: int) -> int:
    """Return a descriptor that appends to the file at `path`; `otherwise` if none is named, or it cannot be opened."""
    if not path:
        return otherwise
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        _LOG.error("the access log goes to standard error: %s cannot be opened: %s", path, error.strerror)
        return otherwise


class AccessRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """What is known of a request once it is answered, as it is written. Never a value of a tensor.

    `time` is given as Unix seconds and `trace_id` as the caller's traceparent; the writer's thread puts both in form.
    """

    time: float | str
    request_id: str
    protocol: str
    route: str
    version: str
    arm: str
    generation: int
    outcome: Outcome
    rows: int
    duration_us: int
    predict_us: int
    fallback: str = ""
    error: str = ""
    trace_id: str | None = None


class AccessLog:
    """Writes to the file descriptor `fd`. `sample` is in parts of 10,000, by request id; errors always go."""

    def __init__(self, fd: int, metrics: Metrics, *, sample: int = ALL) -> None:
        self._sample = sample
        self._writer = LineWriter(fd, _Lines(), metrics.dropped(DROPPED_ACCESS_LOG).add)
        # Hands a record to the writer, or drops and counts it.
        self.write: Callable[[AccessRecord], None] = self._writer.offer

    def wants(self, request_id: str, *, failed: bool) -> bool:
        """Tell whether a request is to be logged."""
        return self._sample >= ALL or failed or crc32(request_id.encode()) % ALL < self._sample

    def close(self, within_s: float = 1.0) -> None:
        """Write what is left, giving up after `within_s`: a reader that has stopped does not hold up the exit."""
        self._writer.close(within_s)


class _Lines:
    """Makes lines of records; keeps the text of the last second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, record: AccessRecord) -> bytes:
        at_s = record.time
        if isinstance(at_s, float):
            second = int(at_s)
            if second != self._second:
                self._second = second
                self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            record.time = f"{self._text}.{int((at_s - second) * 1000):03d}Z"
        if record.trace_id is not None:
            record.trace_id = trace_id(record.trace_id)
        if len(record.error) > _LONGEST_ERROR:
            record.error = record.error[:_LONGEST_ERROR]
        if len(record.route) > _LONGEST_ROUTE:
            record.route = record.route[:_LONGEST_ROUTE]
        try:
            return _ENCODER.encode(record) + b"\n"
        except UnicodeEncodeError:  # a path may hold what is no text
            record.route = record.route.encode(errors="replace").decode()
            record.error = record.error.encode(errors="replace").decode()
            return _ENCODER.encode(record) + b"\n"
