"""The parts of the tour that need no gateway."""

import io
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
from rich.console import Console

from models.flight_delay import display, golden, steps, summary, training
from models.flight_delay.drive import plan
from models.flight_delay.features import COLUMNS, NUMBERS, TEXTS
from models.flight_delay.lineup import PARTS, parts, routes
from models.flight_delay.scrape import Seen
from models.flight_delay.tally import Tally
from models.flight_delay.wire import Answers


def test_plan_covers_every_flight_once_in_order():
    """Requests follow each other without a gap, at least 40 % of them by each protocol."""
    calls = list(plan(10_000))
    assert [call.start for call in calls[1:]] == [call.stop for call in calls[:-1]]
    assert (calls[0].start, calls[-1].stop) == (0, 10_000)
    shares = Counter(call.protocol for call in calls)
    assert min(shares["http"], shares["grpc"]) >= 0.4 * len(calls)
    assert {"json", "binary", "grpc"} == {call.form for call in calls}


def test_routes_leave_out_what_the_machine_cannot_serve():
    """Without Spark there is no shadow; the weights stay whole."""
    assert "shadows" in routes(parts(with_spark=True))
    assert "shadows" not in routes(parts(with_spark=False))


def test_steps_are_read_back():
    """A printed step is read as it was meant; other output is none."""
    command = "from models.flight_delay.steps import Steps; s = Steps(2); s.next('a b'); s.next('c'); print('noise')"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert [steps.read(line) for line in said.splitlines()] == [(1, 2, "a b"), (2, 2, "c"), None]


def test_reference_keeps_every_bit(tmp_path):
    """Numbers written for the reference are read back exactly, missing ones as missing."""
    values = [0.1 + 0.2, np.nan, 1e-300]
    rows = pd.DataFrame({name: ["A", "B", "C"] for name in TEXTS} | dict.fromkeys(NUMBERS, values))
    rows = rows[list(COLUMNS)].assign(label=[0, 1, 0])
    golden.write_reference(tmp_path / "reference.csv", rows, np.array([0, 1, 1]), np.array([0.1, 1 / 3, 2 / 3]))
    found = golden.read_reference(tmp_path / "reference.csv")
    pd.testing.assert_frame_equal(found[list(COLUMNS)], rows[list(COLUMNS)], check_exact=True, check_dtype=False)
    assert found["late"].tolist() == [0.1, 1 / 3, 2 / 3]


def tally_and_metrics():
    """Return a client's tally of four flights, and metrics that say the same."""
    tally = Tally(4)
    for start, version in ((0, 2), (1, 1), (2, 2), (3, 1)):
        answers = Answers(np.array([start % 2]), np.array([start / 4]))
        tally.answered(start, version, "http" if version == 1 else "grpc", answers, 1.0)
        if version == 1:
            tally.compared(1, answers, answers)
            tally.pinned[2] += 1
    requests = Counter(
        {(2, "champion", "grpc", "ok"): 2, (1, "canary", "http", "ok"): 2, (2, "pinned", "http", "ok"): 2}
    )
    return tally, Seen(requests, Counter({(3, "agree"): 3, (3, "disagree"): 1}), 0)


FRAME = pd.DataFrame({"label": [0, 1, 0, 1], "month": [7, 7, 8, 8]})
SAME = summary.Same(np.array([0, 1]), {part.version: np.array([0.2, 0.8]) for part in PARTS})


def test_summary_of_a_good_tour_names_no_problem():
    """When nothing failed, everything was compared and both sides count alike, there is no problem."""
    tally, seen = tally_and_metrics()
    result = summary.summarise(PARTS, FRAME, tally, seen, SAME, 2.0)
    assert result["problems"] == []
    assert result["flights_by_month"] == {"7": 2, "8": 2}
    assert all(check["equal"] for check in result["metrics"])
    champion, canary, shadow = result["versions"]
    assert (champion["share"], canary["share"]) == (0.5, 0.5)
    assert canary["agreement_with_champion"]["flights"] == 2
    assert (shadow["agreement_with_champion"]["equal"], shadow["agreement_with_champion"]["flights"]) == (3, 4)
    assert [version["auc_of_same_flights"] for version in result["versions"]] == [1.0, 1.0, 1.0]


def test_summary_names_what_is_missing():
    """A failed request and a missing comparison are each a problem, and fail the tour."""
    tally, seen = tally_and_metrics()
    tally.failed("http 500: broken")
    result = summary.summarise(PARTS, FRAME, tally, seen._replace(verdicts=Counter()), SAME, 2.0)
    text = "\n".join(result["problems"])
    assert "http 500: broken" in text
    assert "version 3 (Spark (JVM)) was never compared" in text
    assert result["failed"]


def test_requests_from_elsewhere_are_said_and_are_no_problem(capsys):
    """Somebody who tries the README's requests meanwhile is counted, once a request, and spoils nothing."""
    tally, seen = tally_and_metrics()
    seen.requests[2, "champion", "grpc", "ok"] += 3
    seen.requests[1, "pinned", "http", "ok"] += 1
    seen.requests[2, "champion", "http", "invalid"] += 1
    result = summary.summarise(PARTS, FRAME, tally, seen, SAME, 2.0)
    assert (result["problems"], result["failed"], result["requests_from_elsewhere"]) == ([], False, 5)
    summary.show(display.console(), result)
    assert "5 requests came from elsewhere" in capsys.readouterr().out


def test_a_count_that_metrics_lost_is_a_problem_and_no_failure():
    """The gateway may count more than the client, never less; the exit status speaks of requests and comparisons."""
    tally, seen = tally_and_metrics()
    seen.requests[2, "champion", "grpc", "ok"] = 1
    result = summary.summarise(PARTS, FRAME, tally, seen, SAME, 2.0)
    assert "requests answered by version 2 (champion): the client counted 2, /metrics says 1" in result["problems"]
    assert not result["failed"]


def test_plain_lines_are_short(monkeypatch):
    """Where stdout is no terminal each state is one line of less than 100 characters."""
    monkeypatch.setattr(display, "PLAIN_EVERY_S", 0)
    tally, seen = tally_and_metrics()
    said = io.StringIO()
    display.Driving(Console(file=said, width=40), PARTS, tally, 4).update(seen)
    (line,) = said.getvalue().splitlines()
    assert len(line) < 100
    assert "canary 50.0%, @1 agrees 100.00%, @3 agrees 75.00%" in line


def test_training_says_what_to_expect_once():
    """Before the first step, and not at all when nothing is to be trained."""
    said = io.StringIO()
    bars = display.Training(Console(file=said, width=40))
    with bars.shown():
        assert said.getvalue() == ""
        for number in (1, 2):
            bars.told(training.SPARK, steps.Step(number, 5, "fitting"))
    expected = [display.EXPECT, "training spark: 1/5 fitting", "training spark: 2/5 fitting"]
    assert said.getvalue().splitlines() == expected
