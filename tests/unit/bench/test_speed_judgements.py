"""What makes a run of the speed tables count, and how their figures are worked out."""

import json
import math

import numpy as np
import pytest
import yaml

from bench.speed import configs, counters, load, overhead, requests, table
from bench.speed.cores import Spent
from bench.speed.wire import Answer, post
from turnout.core.bucket import bucket

QUIET = Spent(load=0.3, server=0.99, others=0.01)
EXPOSITION = """# TYPE turnout_requests counter
turnout_requests_total{route="a",model="a",version="1",arm="champion",protocol="http",outcome="ok"} 5.0
turnout_requests_total{route="a",model="a",version="2",arm="canary",protocol="http",outcome="ok"} 2.0
turnout_requests_total{route="a",model="a",version="1",arm="champion",protocol="http",outcome="cancelled"} 1.0
turnout_requests_total{route="b",model="b",version="1",arm="champion",protocol="http",outcome="ok"} 9.0
# TYPE turnout_overhead_seconds histogram
turnout_overhead_seconds_bucket{route="a",le="0.0001"} 50.0
turnout_overhead_seconds_bucket{route="a",le="+Inf"} 60.0
"""


def seen(**changes):
    """Return a good run of 100 answers of 10 bytes."""
    good = {"requests": 100, "seconds": 1.0, "bytes": 1000, "failed": 0, "p50_ms": 1.0, "p99_ms": 2.0}
    return load.Load(**{**good, **changes})


def test_a_good_run_counts():
    """As many answers as the gateway counted, of the right size, by a load that had time to spare."""
    assert table.faults(seen(), 4, (10, 10), QUIET, {"ok": 103, "cancelled": 1}) == []


@pytest.mark.parametrize(
    ("change", "spent", "grown"),
    [
        ({}, Spent(load=0.86, server=0.9, others=0.0), {"ok": 100}),
        ({"failed": 1}, QUIET, {"ok": 100}),
        ({"bytes": 990}, QUIET, {"ok": 100}),
        ({"bytes": 1050}, QUIET, {"ok": 100}),
        ({}, QUIET, {"ok": 99}),
        ({}, QUIET, {"ok": 105}),
        ({}, QUIET, {"ok": 100, "fault": 1}),
    ],
    ids=["busy load", "failed", "too few bytes", "too many bytes", "not counted", "counted too often", "a fault"],
)
def test_a_run_that_cannot_be_trusted_says_why(change, spent, grown):
    """A busy load, a failed request, wrong bytes and counts that differ each void the run."""
    assert len(table.faults(seen(**change), 4, (10, 10), spent, grown)) == 1


def test_outcomes_are_those_of_one_route_over_all_versions():
    """Versions of a route add up; other routes do not count."""
    assert counters.outcomes(EXPOSITION, "a") == {"ok": 7, "cancelled": 1}
    assert counters.buckets(EXPOSITION, "turnout_overhead_seconds", route="a") == {0.0001: 50.0, math.inf: 60.0}


def test_a_quantile_lies_in_its_bucket():
    """Within a bucket it is straight; beyond the last bound nothing is known."""
    cumulated = {0.001: 50.0, 0.002: 90.0, math.inf: 100.0}
    assert overhead.quantile(cumulated, 0.5) == pytest.approx(0.001)
    assert overhead.quantile(cumulated, 0.7) == pytest.approx(0.0015)
    assert overhead.quantile(cumulated, 0.99) == math.inf
    assert math.isnan(overhead.quantile({}, 0.5))


def test_ratios_pair_runs_of_one_round():
    """The median of pairs holds where the machine's speed drifts from round to round."""
    runs = {"a": [200.0, 20.0, 300.0], "b": [100.0, 10.0, 100.0]}
    cell = table.Cell(
        "w", 1, {name: [table.Run(rate, 1, 1, 1, QUIET, None, []) for rate in rates] for name, rates in runs.items()}
    )
    assert cell.ratio("a", "b") == 2.0
    assert cell.cpu_us("a") == pytest.approx(0.99 / 200 * 1e6)
    assert table.rotated(["a", "b", "c"], 4) == ["b", "c", "a"]


def test_h2load_is_read_to_the_byte():
    """Requests, failures and bytes of data frames come from its words; other words are refused."""
    said = (
        "requests: 105 total, 105 started, 100 done, 99 succeeded, 1 failed, 0 errored, 0 timeout\n"
        "traffic: 24.28KB (24859) total, 8.83KB (9037) headers (space savings 80.90%), 7.35KB (7524) data\n"
    )
    found = load.read_h2load(said, 2.0)
    assert (found.requests, found.failed, found.bytes, found.rate) == (99, 1, 7524, 49.5)
    with pytest.raises(RuntimeError, match="h2load said"):
        load.read_h2load("nothing", 2.0)


def test_load_side_by_side_adds_up():
    """Counts add; quantiles are of all latencies together."""
    both = load.joined([(seen(), [1000] * 60), (seen(failed=2), [9000] * 40)])
    assert (both.requests, both.failed, both.bytes) == (200, 2, 2000)
    assert (both.p50_ms, both.p99_ms) == (1.0, 9.0)


def test_each_request_has_its_own_user():
    """USER in the configuration becomes another user for each request of the set."""
    one = requests.Requests([b"{}"], {"content-type": "x"}, [{}], requests.read_json)
    assert requests.headers_of(one, {"x-user-id": "USER", "a": "b"}, 3) == {
        "content-type": "x",
        "x-user-id": "user-3",
        "a": "b",
    }
    assert (
        post("h:1", "/p", b"{}", {"a": "b"}) == b"POST /p HTTP/1.1\r\nhost: h:1\r\na: b\r\ncontent-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ([0.5, 1.0000001], None),
        ([0.5, 1.1], "y is"),
        ([0.5], "y is"),
    ],
)
def test_an_answer_is_compared_with_the_engine(body, wrong):
    """Numbers agree within 1e-5, and in number."""
    outputs = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [len(body)], "data": body}]}
    asked = requests.Requests([b""], {}, [{"y": np.array([0.5, 1.0], np.float32)}], requests.read_json)
    said = requests.mismatch(Answer(200, json.dumps(outputs).encode(), 0, {}), asked, 0)
    assert said is None if wrong is None else wrong in said
    assert "status 500" in requests.mismatch(Answer(500, b"", 0, {}), asked, 0)


@pytest.mark.parametrize(("name", "versions"), [(configs.ON, {"1", "2", "3"}), (configs.OFF, {"1"})])
def test_both_configurations_lay_out_every_version_that_their_route_names(tmp_path, name, versions):
    """A split and a shadow need three versions, each with what the configuration adds; off needs one."""
    model = tmp_path / "source" / "m"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"bytes")
    (model / "model.yaml").write_text(json.dumps({"batching": False}))
    settings = configs.lay_out(name, tmp_path / "source", tmp_path / name)
    laid = tmp_path / name / "models"
    assert {path.name for path in (laid / "m").iterdir()} == versions
    declared = yaml.safe_load((laid / "m" / "1" / "model.yaml").read_text())
    assert declared["batching"] is False
    assert declared["limits"]["queue_rows"] == 16_384
    assert list(yaml.safe_load((laid / "routes.yaml").read_text())["routes"]) == ["m"]
    assert settings.parent == tmp_path / name


def test_all_features_are_on():
    """The configuration that the bars are held with has every feature that they speak of."""
    client = configs.client(configs.ON)
    assert client.headers.keys() == {"x-user-id", "turnout-deadline-ms", "traceparent"}
    assert client.scrape_s == 1
    route = yaml.safe_load((configs.CONFIGS / configs.ON / "route.yaml").read_text())
    assert route["weights"] == {1: 9500, 2: 500}
    assert route["shadows"] == [{"version": 3, "sample": 1000}]
    assert route["sticky"]["header"] == "x-user-id"
    users = [requests.user(number) for number in range(requests.SET)]
    assert sum(bucket(route["sticky"]["salt"], user) >= 9500 for user in users) == 3
    settings = yaml.safe_load((configs.CONFIGS / configs.ON / "turnout.yaml").read_text())
    assert settings["access_log_path"]
    assert settings["access_log_sample"] == 10_000


def test_features_at_work_are_told_from_those_that_sleep():
    """The canary answers, shadows run, and every request is a line of the access log or counted as dropped."""
    exposition = """# TYPE turnout_requests counter
turnout_requests_total{route="a",model="a",version="1",arm="champion",protocol="http",outcome="ok"} 95.0
turnout_requests_total{route="a",model="a",version="2",arm="canary",protocol="http",outcome="ok"} 5.0
# TYPE turnout_shadow_requests counter
turnout_shadow_requests_total{route="a",version="a@3",outcome="ok"} 9.0
# TYPE turnout_dropped counter
turnout_dropped_total{what="access_log"} 2.0
turnout_dropped_total{what="shadow"} 1.0
"""
    found = counters.features(exposition, b"{}\n" * 98)
    assert found == counters.Features(
        requests=100, canary=5, shadow_copies=9, shadow_dropped=1, log_lines=98, log_dropped=2
    )
    assert found.unlogged == 0
