"""The exposition: one for all slots, without what left the snapshot, and nothing ever falls."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.exposition import render
from gateway.observe.metrics import Metrics
from turnout.core.ids import VersionRef
from turnout.core.status import Outcome

ONE, TWO = VersionRef("m", 1), VersionRef("m", 2)
LIVE = frozenset({"m@1", "m@2"})


def rendered(directory, live=LIVE, routes=frozenset({"m"})):
    """Return the samples of an exposition by name and labels."""
    text = render(directory, live, routes).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name, **labels):
    """Return the one sample with these labels."""
    (found,) = [
        number for (known, pairs), number in samples.items() if known == name and labels.items() <= dict(pairs).items()
    ]
    return found


def test_slots_are_summed(tmp_path):
    """Counters, histograms and gauges of living processes add up; the generation is the oldest that is obeyed."""
    for slot in (0, 1):
        metrics = Metrics(tmp_path, slot)
        arm = metrics.arm("m", ONE, "champion")
        arm.requests("http", Outcome.OK).add()
        arm.duration.observe(0.002)
        metrics.route("m").in_flight.add(2)
        metrics.version(ONE).load_seconds.set(3 + slot)
        metrics.snapshot_generation().set(7 + slot)
    samples = rendered(tmp_path)
    assert value(samples, "turnout_requests_total") == 2
    assert value(samples, "turnout_request_duration_seconds_count") == 2
    assert value(samples, "turnout_request_duration_seconds_bucket", le="0.0025") == 2
    assert value(samples, "turnout_request_duration_seconds_bucket", le="0.001") == 0
    assert value(samples, "turnout_in_flight") == 4
    assert value(samples, "turnout_model_load_seconds") == 4
    assert value(samples, "turnout_snapshot_generation") == 7


def test_counters_survive_their_process(tmp_path):
    """A slot whose owner died and was replaced goes on; only what its gauges said is gone."""
    first = Metrics(tmp_path, 0)
    first.arm("m", ONE, "champion").requests("grpc", Outcome.OK).add(5)
    first.route("m").in_flight.add()
    first.close()
    for file in tmp_path.glob("gauge_live*_0.db"):
        file.unlink()
    assert value(rendered(tmp_path), "turnout_requests_total") == 5
    Metrics(tmp_path, 0).arm("m", ONE, "champion").requests("grpc", Outcome.OK).add()
    samples = rendered(tmp_path)
    assert value(samples, "turnout_requests_total") == 6
    assert not [name for name, _ in samples if name == "turnout_in_flight"]


def test_what_left_the_snapshot_is_left_out(tmp_path):
    """Series of versions and routes that are gone do not show; they are back with the count they had."""
    metrics = Metrics(tmp_path, 0)
    metrics.arm("m", ONE, "champion").requests("http", Outcome.OK).add()
    metrics.arm("gone", ONE, "champion").requests("http", Outcome.OK).add()
    metrics.version(TWO).predict.observe(0.1)
    metrics.shadow_rows("m", TWO, "agree").add()
    metrics.fallbacks("m", TWO, "champion", Outcome.FAULT, Outcome.OK).add()
    metrics.arm("", None, "none").requests("http", Outcome.NOT_FOUND).add()
    assert {
        name for name, labels in rendered(tmp_path, frozenset({"m@1"})) if dict(labels).get("version") == "2"
    } == set()
    samples = rendered(tmp_path, frozenset({"m@1"}))
    assert {name for name, _ in samples} >= {"turnout_requests_total"}
    assert "turnout_shadow_comparisons_total" not in {name for name, _ in samples}
    assert "turnout_fallbacks_total" not in {name for name, _ in samples}
    assert value(samples, "turnout_requests_total", arm="none", outcome="not_found") == 1
    assert not [labels for _, labels in samples if dict(labels).get("route") == "gone"]
    assert value(rendered(tmp_path), "turnout_shadow_comparisons_total", version="m@2") == 1


def test_empty_folder_is_an_empty_exposition(tmp_path):
    """Before any process has counted there is nothing to show, and no fault."""
    assert render(tmp_path, frozenset(), frozenset()) == b""


def test_unknown_names_add_no_series(tmp_path):
    """However many unknown names are asked for, they count in one series."""
    metrics = Metrics(tmp_path, 0)
    for _ in range(1000):
        metrics.arm("", None, "none").requests("http", Outcome.NOT_FOUND).add()
    found = [labels for name, labels in rendered(tmp_path) if name == "turnout_requests_total"]
    assert found == [
        (("arm", "none"), ("model", ""), ("outcome", "not_found"), ("protocol", "http"), ("route", ""), ("version", ""))
    ]
