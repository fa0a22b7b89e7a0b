"""Python's log records through a bounded queue, so that a log that nobody reads holds up no request."""

import logging
from typing import Self

from gateway.observe.line_writer import LineWriter
from gateway.observe.metrics import DROPPED_LOG, Metrics


class BoundedLogHandler(logging.Handler):
    """Writes formatted records to the file descriptor `fd`; drops and counts when the queue is full."""

    def __init__(self, fd: int, metrics: Metrics) -> None:
        super().__init__()
        self._writer = LineWriter(fd, _line, metrics.dropped(DROPPED_LOG).add)

    @classmethod
    def install(cls, fd: int, metrics: Metrics, name: str) -> Self:
        """Take over the process's log, warnings and worse; its lines carry the process's `name`."""
        handler = cls(fd, metrics)
        logging.basicConfig(
            format=f"%(asctime)s %(levelname)s %(name)s [{name}]: %(message)s",
            level=logging.WARNING,
            handlers=[handler],
            force=True,
        )
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record here, since what it refers to may change, and hand it to the writer."""
        try:
            self._writer.offer(self.format(record))
        except Exception:  # noqa: BLE001  logging's own rule: a broken record is its handler's matter
            self.handleError(record)

    def say(self, text: str) -> None:
        """Hand a line over as it stands: what an operator is told that is no warning."""
        self._writer.offer(text)

    def close(self) -> None:
        """Write what is left, at most a second long."""
        self._writer.close(1.0)
        super().close()


def _line(text: str) -> bytes:
    return text.encode(errors="backslashreplace") + b"\n"
