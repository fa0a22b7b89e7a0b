"""The access log: its fields, its sample, and that errors always go."""

import json
import logging
import os
import re
from pathlib import Path

import pytest

from gateway.observe.access_log import AccessLog, AccessRecord, open_log
from gateway.observe.exposition import merged
from gateway.observe.log_handler import BoundedLogHandler
from gateway.observe.metrics import Metrics
from gateway.routing.recorder import Recorder
from tests.fakes import FakeModel, Plane, request, route
from turnout.core.clock import monotonic_s
from turnout.core.errors import InvalidInput, NotFound, TooLarge
from turnout.core.snapshot import BUCKETS, Fallback

REFERENCE = Path(__file__).parents[4] / "docs/reference/access-log.md"


class Log:
    """An access log into a file."""

    def __init__(self, folder, metrics, **fields):
        self.path = folder / "access.log"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        self.log = AccessLog(self._fd, metrics, **fields)

    def lines(self):
        """Close the log and return its lines."""
        self.log.close(10)
        os.close(self._fd)
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def record(**fields):
    """Return a record."""
    known = {
        "time": 1.5,
        "request_id": "id-1",
        "protocol": "http",
        "route": "m",
        "version": "m@1",
        "arm": "champion",
        "generation": 3,
        "outcome": "ok",
        "rows": 2,
        "duration_us": 12345,
        "predict_us": 10000,
    }
    return AccessRecord(**{**known, **fields})


def test_fields_of_a_plain_request(tmp_path):
    """A line says when, what, who and how long."""
    log = Log(tmp_path, Metrics(tmp_path, 0))
    log.log.write(record())
    assert log.lines() == [
        {
            "time": "1970-01-01T00:00:01.500Z",
            "request_id": "id-1",
            "protocol": "http",
            "route": "m",
            "version": "m@1",
            "arm": "champion",
            "generation": 3,
            "outcome": "ok",
            "rows": 2,
            "duration_us": 12345,
            "predict_us": 10000,
        }
    ]


def test_long_and_undecodable_texts_are_cut(tmp_path):
    """What a caller wrote takes a bounded place and is always text; rare fields come only with content."""
    log = Log(tmp_path, Metrics(tmp_path, 0))
    trace = "0af7651916cd43dd8448eb211c80319c"
    log.log.write(
        record(
            route="\udcff" * 300,
            error="e" * 2000,
            fallback="value",
            trace_id=f"00-{trace}-b7ad6b7169203331-01",
        )
    )
    (line,) = log.lines()
    assert line["route"] == "?" * 128
    assert line["error"] == "e" * 512
    assert (line["fallback"], line["trace_id"]) == ("value", trace)


def test_every_field_is_documented(tmp_path):
    """The reference lists exactly the fields that are written."""
    log = Log(tmp_path, Metrics(tmp_path, 0))
    log.log.write(record(error="x", fallback="value", trace_id=f"00-{'1' * 32}-{'1' * 16}-01"))
    (line,) = log.lines()
    documented = re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(line)


def test_sample_is_by_request_id_and_errors_always_go(tmp_path):
    """The same requests are logged everywhere, about as many as wanted, and each error."""
    metrics = Metrics(tmp_path, 0)
    half = Log(tmp_path, metrics, sample=BUCKETS // 2)
    ids = [f"id-{number}" for number in range(400)]
    wanted = [identity for identity in ids if half.log.wants(identity, failed=False)]
    assert wanted == [identity for identity in ids if half.log.wants(identity, failed=False)]
    assert 140 < len(wanted) < 260
    assert all(half.log.wants(identity, failed=True) for identity in ids)
    none = Log(tmp_path, metrics, sample=0)
    assert not any(none.log.wants(identity, failed=False) for identity in ids)
    assert half.lines() == none.lines() == []


async def test_router_writes_one_line_a_request(tmp_path, monkeypatch):
    """Answers, errors, refusals and unknown names each leave one line."""
    (tmp_path / "log").mkdir()
    log = Log(tmp_path, Metrics(tmp_path / "log", 0))
    plane = Plane(tmp_path, monkeypatch, access_log=log.log)
    value = Fallback("value", {"label": 0, "score": 0.5})
    await plane.serve({"m@1": FakeModel()}, route("m", "m@1"), route("n", "m@2", fallback=(value,)))
    await plane.predict(request([1.0, 2.0], request_id="a"))
    with pytest.raises(InvalidInput):
        await plane.predict(request(inputs={}, request_id="b"))
    with pytest.raises(NotFound):
        await plane.predict(request(name="nope", request_id="c"))
    plane.backend.refused("m", "grpc", TooLarge("too large: 9 bytes"), "d", monotonic_s())
    await plane.predict(request(name="n", request_id="e"))
    await plane.close()
    lines = {line["request_id"]: line for line in log.lines()}
    assert {key: (line["outcome"], line["arm"], line["version"], line["rows"]) for key, line in lines.items()} == {
        "a": ("ok", "champion", "m@1", 2),
        "b": ("invalid", "champion", "m@1", 0),
        "c": ("not_found", "none", "", 0),
        "d": ("too_large", "none", "", 0),
        "e": ("unavailable", "champion", "m@2", 0),
    }
    assert lines["b"]["error"] == "tensor 'x': missing; inputs are 'x'"
    assert lines["d"]["error"] == "too large: 9 bytes"
    assert lines["e"]["fallback"] == "value"
    assert lines["a"]["duration_us"] >= lines["a"]["predict_us"] >= 0


def test_unsampled_successes_are_counted_all_the_same(tmp_path):
    """What is not logged is still in the metrics."""
    metrics = Metrics(tmp_path, 0)
    log = Log(tmp_path, metrics, sample=0)
    recorder = Recorder(metrics, log.log)
    fields = {"known": True, "generation": 1}
    recorder.refused("m", "http", TooLarge("x"), "id-1", monotonic_s(), **fields)
    assert len(log.lines()) == 1
    assert sum(sample.value for family in merged(tmp_path, "counter") for sample in family.samples) == 1


def test_log_handler_writes_records_with_their_traceback(tmp_path):
    """Python's log goes through the same kind of queue, tracebacks and odd characters included."""
    path = tmp_path / "log.txt"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    handler = BoundedLogHandler(fd, Metrics(tmp_path, 0))
    logger = logging.getLogger("turnout.test")
    logger.addHandler(handler)
    try:
        raise ValueError("odd \udcff")
    except ValueError:
        logger.exception("request %s", "id-1")
    logger.removeHandler(handler)
    handler.close()
    os.close(fd)
    text = path.read_text()
    assert text.startswith("request id-1\nTraceback")
    assert text.endswith("ValueError: odd \\udcff\n")


def test_the_log_goes_to_its_file_where_one_is_named(tmp_path, caplog):
    """Lines are appended; without a file, or with one that cannot be opened, the descriptor of before stays."""
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    descriptor = open_log(str(path), 1)
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert path.read_bytes() == b"before\nafter\n"
    assert open_log("", 7) == 7
    assert open_log(str(tmp_path / "absent" / "access.log"), 7) == 7
    assert "cannot be opened: No such file or directory" in caplog.text
