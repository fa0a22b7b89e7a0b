"""Metrics: declared once, bound once, documented."""

import re
from pathlib import Path

from gateway.observe import metrics
from gateway.observe.metrics import Family, Metrics
from turnout.core.ids import VersionRef
from turnout.core.status import Outcome

REFERENCE = Path(__file__).parents[4] / "docs/reference/metrics.md"
FAMILIES = [value for value in vars(metrics).values() if isinstance(value, Family)]


def test_every_metric_is_documented():
    """The reference lists each metric with its kind, labels and help, and no other."""
    rows = re.findall(r"^\| `(turnout_\w+)` \| (\w+) \| (.+) \| (.+) \|$", REFERENCE.read_text(), re.MULTILINE)
    assert rows == [
        (
            family.name,
            family.kind.partition("_")[0],
            ", ".join(f"`{label}`" for label in family.labels) or "none",
            family.documentation,
        )
        for family in FAMILIES
    ]


def test_numbers_are_bound_once(tmp_path):
    """Who asks for the same labels gets the same object: the request path looks nothing up by label."""
    bound = Metrics(tmp_path, 0)
    ref = VersionRef("m", 1)
    arm = bound.arm("m", ref, "champion")
    assert bound.arm("m", ref, "champion") is arm
    assert arm.requests("http", Outcome.OK) is arm.requests("http", Outcome.OK)
    assert bound.version(ref) is bound.version(ref)
    assert bound.route("m") is bound.route("m")


def test_label_values_do_not_depend_on_order(tmp_path):
    """Each number has a place of its own, whatever its labels are."""
    bound = Metrics(tmp_path, 0)
    first = bound.fallbacks("m", VersionRef("m", 1), "champion", Outcome.FAULT, Outcome.OK)
    second = bound.fallbacks("m", VersionRef("m", 1), "champion", Outcome.OK, Outcome.FAULT)
    first.add(2)
    second.add(3)
    assert (first.get(), second.get()) == (2, 3)
