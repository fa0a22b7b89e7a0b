"""How the checks of processes judge: each must tell what was lost from what was not."""

import math

from bench.campaign import memory, process_kills, worker_stops
from bench.campaign.harness import Campaign

TEXT = """# TYPE a_total counter
a_total{x="1"} 3
# TYPE b gauge
b 4
# TYPE c histogram
c_bucket{le="1"} 1
c_bucket{le="+Inf"} 2
c_sum 5
c_count 2
"""


def missed(campaign):
    """Return the names of the figures that were not reached."""
    return [figure.name for figure in campaign.figures if not figure.reached]


def test_only_what_grows_is_compared():
    """Counters and every sample of a histogram must not fall, nor go away; gauges may."""
    before = process_kills.growing(TEXT)
    assert before['a_total{x="1"}'] == 3
    assert len(before) == 5
    assert process_kills.fallen(before, before) == []
    assert process_kills.fallen(before, process_kills.growing(TEXT.replace("b 4", "b 1"))) == []
    assert len(process_kills.fallen(before, process_kills.growing(TEXT.replace('le="1"} 1', 'le="1"} 0')))) == 1
    assert len(process_kills.fallen(before, process_kills.growing(TEXT.replace("c_sum 5\n", "")))) == 1


def test_counts_must_lie_between_what_was_answered_and_what_broke():
    """More than that was counted for nobody; less was answered and not counted."""
    scrapes = process_kills.Scrapes("nowhere")
    sample = 'turnout_requests_total{outcome="ok",protocol="http",route="one"}'
    for counted, broken, found in ((10, 0, 0), (12, 2, 0), (13, 2, 1), (9, 5, 1)):
        scrapes.last = {sample: float(counted)}
        campaign = Campaign("judged", 1)
        process_kills.judge(campaign, scrapes, {"http": process_kills.Counts(10, 0, broken)}, 20)
        assert len(missed(campaign)) == found


def test_memory_that_grows_is_told():
    """A line fitted through the samples tells growth from noise; descriptors must not pile up."""
    for per_sample, files, found in ((0.0, 0, 0), (0.1, 0, 0), (1.0, 0, 1), (0.0, 1, 1)):
        samples = [
            memory.Sample(100_000 * n, 100 + per_sample * n + (n % 2) / 4, 50, 30 + files * n, 20) for n in range(1, 11)
        ]
        campaign = Campaign("judged", 1)
        memory.judge(campaign, samples, 1_000_000)
        assert len(missed(campaign)) == found


def test_an_answer_to_other_rows_is_wrong():
    """Values are compared row by row with what the rows ask for."""
    assert worker_stops.is_right([1.0, 2.0], [1.3, 1.6])
    assert not worker_stops.is_right([1.0, 2.0], [1.6, 1.3])
    assert not worker_stops.is_right([1.0, 2.0], [1.3])


def test_hangs_wrong_answers_and_late_ones_are_told():
    """Each kind of failure shows in its own figure."""
    good = worker_stops.Call(0.9, 2.0, 1.5, 503)
    faults = {
        "wrong answers": worker_stops.Call(0.9, 2.0, 1.5, 200, right=False),
        "hangs: calls without an answer of the gateway": worker_stops.Call(0.9, 2.0, 1.1, 0),
        "slowest answer of a call in flight at a kill, seconds": worker_stops.Call(0.9, 2.0, 2.5, 503),
        "answers other than (200, 429, 503) around kills": worker_stops.Call(1.1, 2.0, 1.5, 500),
        "calls in flight at a kill answered otherwise than (200, 503)": worker_stops.Call(0.9, 2.0, 1.5, 429),
    }
    for name, call in (("", good), *faults.items()):
        campaign = Campaign("judged", 1)
        hit = worker_stops.Hit("python", stop=False, at_s=1.0, in_flight=40, calls=[good, call], back_s=1.0)
        worker_stops.judge(campaign, [hit], 1)
        assert missed(campaign) == ([name] if name else [])
    campaign = Campaign("judged", 1)
    lost = worker_stops.Hit("spark", stop=False, at_s=1.0, in_flight=40, calls=[good], back_s=math.inf)
    worker_stops.judge(campaign, [lost], 1)
    assert missed(campaign) == ["spark: slowest return after a kill, seconds"]
