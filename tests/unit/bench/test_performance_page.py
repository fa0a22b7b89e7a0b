"""The page of results and its pictures: made of the committed JSON, and nothing else."""

from xml.etree import ElementTree as ET

import pytest

from bench.speed import page
from bench.speed.picture import Bar, Group, Held, groups_of, held_of, picture

DOCUMENT = {
    "figures": [
        {"name": "one row", "value": 0.9, "bar": ">= 1", "reached": False},
        {"name": "p99", "value": 100.0, "bar": "<= 500", "reached": True},
        {"name": "load's share of its core", "value": 0.3, "bar": "<= 0.85", "reached": True},
        {"name": "runs that do not count", "value": 0, "bar": "== 0", "reached": True},
    ],
    "notes": {
        "table": [
            {
                "workload": "row",
                "clients": 32,
                "runs": {
                    "bare": [{"rate": 100.0, "p50_ms": 1.0, "p99_ms": 2.0}],
                    "all-features-on": [{"rate": rate, "p50_ms": 1.0, "p99_ms": 2.0} for rate in (90.0, 80.0, 500.0)],
                },
            },
            {"workload": "row", "clients": 1, "runs": {}},
        ]
    },
}


def test_the_committed_page_is_the_one_that_the_results_make():
    """Neither the page nor a picture was written by hand, and none is left over."""
    assert page.PAGE.read_text() == page.page(), "write it anew: python -m bench.speed.page"
    drawn = page.pictures()
    for file in page.TABLES.values():
        path = page.DOCS / file
        assert path.exists() == (path in drawn)
        if path in drawn:
            assert path.read_text() == drawn[path], "draw it anew: python -m bench.speed.page"


def test_the_gateway_comes_first_and_its_bar_is_the_median():
    """Of one workload with so many clients, with every run as a dot."""
    (group,) = groups_of(DOCUMENT, 32)
    assert group.bars == [Bar("all-features-on", 90.0, [90.0, 80.0, 500.0]), Bar("bare", 100.0, [100.0])]


def test_figures_with_a_bound_are_held():
    """Conditions of the run are none of them; at most and at least count as shares of the bar alike."""
    found = held_of(DOCUMENT)
    assert [figure.name for figure in found] == ["one row", "p99"]
    assert [figure.share for figure in found] == pytest.approx([0.9, 5.0])


@pytest.mark.parametrize("linear", [True, False])
def test_a_picture_is_the_same_each_time_and_well_formed(linear):
    """One JSON gives one sequence of bytes, with axis, bars, dots and the line of the bar."""
    groups = [Group("row < 2", [Bar("all-features-on", 90.0, [80.0, 100.0]), Bar("bare & co", 8000.0, [8000.0])])]
    held = [Held("one row", 0.9, at_least=True, bound=1.0)]
    drawn = picture("title", "under", groups, held, linear=linear)
    assert drawn == picture("title", "under", groups, held, linear=linear)
    root = ET.fromstring(drawn)
    kinds = [element.get("class") for element in root.iter()]
    assert kinds.count("dot") == 3
    assert {"on", "other", "missed", "bound", "grid"} <= set(kinds)
    assert any("requests a second" in (element.text or "") for element in root.iter())
