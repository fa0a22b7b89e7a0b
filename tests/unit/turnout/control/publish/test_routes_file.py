"""`routes.yaml`: every form of DESIGN 5, and refusals with their line."""

import pytest

from turnout.control.publish.routes_file import read_routes
from turnout.core.document import DocumentError
from turnout.core.snapshot import NUMERIC, Comparison, Fallback, Match, Shadow, Sticky

WHOLE = """\
routes:
  flight-delay:
    champion: flight-delay@2
    weights: {flight-delay@2: 9500, flight-delay@1: 500}
    shadows: [{version: flight-delay@3, sample: 5000, compare: {label: exact}}]
    sticky: {header: X-User-Id}
    match: [{header: {X-Cohort: beta}, version: flight-delay@3}]
    deadline_ms: 200
    fallback: [champion, previous, {value: {label: 0}}]
    retry_safe: true
"""


def refusal(text: str) -> str:
    """Return the complaint about a file."""
    with pytest.raises(DocumentError) as caught:
        read_routes(text, "routes.yaml")
    return str(caught.value)


def test_the_documented_example_is_read_whole():
    """Every key of the contract arrives in the declaration, header names in lower case."""
    (route,) = read_routes(WHOLE, "routes.yaml")
    assert route.name == "flight-delay"
    assert route.champion == "flight-delay@2"
    assert route.weights == {"flight-delay@2": 9_500, "flight-delay@1": 500}
    assert route.shadows == (Shadow("flight-delay@3", 5_000, {"label": Comparison("exact")}),)
    assert route.sticky == Sticky("flight-delay", header="x-user-id")
    assert route.matches == (Match({"x-cohort": "beta"}, "flight-delay@3"),)
    assert route.deadline_ms == 200
    assert route.fallback == (Fallback("champion"), Fallback("previous"), Fallback("value", {"label": 0}))
    assert route.retry_safe is True
    assert route.versions() == {"flight-delay@1", "flight-delay@2", "flight-delay@3"}


def test_every_version_has_the_line_that_names_it_first():
    """Later complaints about a version point into the file."""
    (route,) = read_routes(WHOLE, "routes.yaml")
    assert [route.line_of(f"flight-delay@{number}") for number in (1, 2, 3)] == [4, 3, 5]
    assert route.line_of("other@1") == route.line == 2


def test_a_bare_number_is_a_version_of_the_model_named_as_the_route():
    """`3` and `'3'` mean ROUTE@3, as value and as key."""
    text = "routes:\n  a.b:\n    champion: 3\n    weights: {3: 9000, '4': 1000}\n    shadows: [{version: other@7}]"
    (route,) = read_routes(text, "routes.yaml")
    assert route.champion == "a.b@3"
    assert route.weights == {"a.b@3": 9_000, "a.b@4": 1_000}
    assert route.shadows == (Shadow("other@7"),)


def test_defaults():
    """A champion alone takes all traffic, for at most 30 s a request."""
    (route,) = read_routes("routes: {m: {champion: 1}}", "routes.yaml")
    assert route.weights == {"m@1": 10_000}
    assert route.deadline_ms == 30_000
    assert (route.shadows, route.sticky, route.matches, route.fallback, route.retry_safe) == ((), None, (), (), False)


def test_no_routes_is_an_answer():
    """`routes: {}` means none."""
    assert read_routes("routes: {}", "routes.yaml") == ()


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("exact", Comparison("exact")),
        ("numeric", NUMERIC),
        ("{abs: 0.5}", Comparison("numeric", abs=0.5)),
        ("{abs: 0, rel: 0.01}", Comparison("numeric", rel=0.01)),
    ],
)
def test_comparisons(how, wanted):
    """An output is compared exactly, within the default tolerance, or within one written out."""
    (route,) = read_routes(
        f"routes: {{m: {{champion: 1, shadows: [{{version: 2, compare: {{y: {how}}}}}]}}}}", "routes.yaml"
    )
    assert route.shadows[0].compare == {"y": wanted}


@pytest.mark.parametrize(("sticky", "wanted"), [
    ("{parameter: user}", Sticky("m", parameter="user")),
    ("{header: h, salt: s}", Sticky("s", header="h")),
    ("{header: h, salt: ''}", Sticky("", header="h")),
])  # fmt: skip
def test_sticky_forms(sticky, wanted):
    """The salt is the route's name unless written, also when written empty."""
    (route,) = read_routes(f"routes: {{m: {{champion: 1, sticky: {sticky}}}}}", "routes.yaml")
    assert route.sticky == wanted


@pytest.mark.parametrize(
    ("before", "after", "line", "reason"),
    [
        ("9500", "9400", 4, "route 'flight-delay': weights sum to 9,900 parts, not 10,000"),
        ("9500", "-1", 4, "weights.flight-delay@2: expected a whole number >= 0"),
        ("9500", "9500.0", 4, "weights.flight-delay@2: expected a whole number, got a number"),
        ("9500", "0.95", 4, "weights.flight-delay@2: expected a whole number, got a number; it is parts of 10,000"),
        ("{flight-delay@2: 9500,", "{flight-delay@1: 9500, 1: 0,", 4, "key 'flight-delay@1' appears twice"),
        ("{flight-delay@2: 9500,", "{1: 9500,", 4, "weights name flight-delay@1 twice"),
        ("flight-delay@3, sample", "2, sample", 5, "flight-delay@2 is the champion"),
        ("}}]\n    sticky", "}}, {version: 3}]\n    sticky", 5, "shadows name flight-delay@3 twice"),
        ("5000", "10001", 5, "shadows[0].sample: expected a whole number <= 10000; it is parts of 10,000"),
        ("label: exact", "label: exat", 5, "invalid enum value 'exat'; one of exact, numeric"),
        ("{header: X-User-Id}", "{header: a, parameter: b}", 6, "sticky takes either a header or a parameter"),
        ("{header: X-User-Id}", "{}", 6, "sticky takes either a header or a parameter"),
        ("X-User-Id", "X User", 6, "'X User' is not a header name"),
        ("{X-Cohort: beta}", "{}", 7, "a match names at least one header"),
        ("{X-Cohort: beta}", "{X-Cohort: beta, x-cohort: a}", 7, "header 'x-cohort' appears twice"),
        ("beta", "1", 7, "header.X-Cohort: expected text, got a whole number"),
        ("200", "0", 8, "deadline_ms: expected a whole number >= 1"),
        ("previous", "prevous", 9, "invalid enum value 'prevous'; one of champion, previous, {value: …}"),
        ("{label: 0}", "{}", 9, "a fallback value names at least one output"),
        ("retry_safe", "retry_save", 10, "unknown key 'retry_save'; did you mean 'retry_safe'?"),
        ("champion: flight-delay@2", "champion: flight-delay@0", 3, "'0' is not a version number"),
        ("champion: flight-delay@2", "champion: -f@2", 3, "'-f' is not a model name"),
        ("    champion: flight-delay@2\n", "", 2, "routes.flight-delay: key 'champion' is missing"),
        ("  flight-delay:", "  'a b':", 2, "route name 'a b': names are"),
        ("routes:", "rutes:", 1, "unknown key 'rutes'; did you mean 'routes'?"),
    ],
)
def test_refusals_name_the_line(before, after, line, reason):
    """Each fault is refused with the line on which it stands."""
    complaint = refusal(WHOLE.replace(before, after, 1))
    assert complaint.startswith(f"routes.yaml:{line}: ")
    assert reason in complaint


def test_a_file_of_one_good_and_one_faulty_route_is_refused_whole():
    """Nothing of a faulty file is taken."""
    assert "weights sum" in refusal("routes: {a: {champion: 1}, b: {champion: 1, weights: {1: 1}}}")


def test_null_for_routes_is_refused():
    """A file that stops after `routes:` may be half written; none is written `{}`."""
    assert refusal("routes:\n") == "routes.yaml:1: routes: expected a mapping, got nothing"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "routes: {" + ", ".join(f"r{number}: {{champion: m@1}}" for number in range(10_001)) + "}",
            "routes: expected a mapping of length <= 10000",
        ),
        (
            "routes: {m: {champion: 1, weights: {1: 10000, "
            + ", ".join(f"{number}: 0" for number in range(2, 102))
            + "}}}",
            "routes.m.weights: expected a mapping of length <= 100",
        ),
        (
            "routes: {m: {champion: 1, shadows: [" + ", ".join(f"{{version: {n}}}" for n in range(2, 103)) + "]}}",
            "routes.m.shadows: expected a list of length <= 100",
        ),
    ],
)
def test_a_file_beyond_its_bounds_is_refused(text, reason):
    """More routes than a table takes, or more versions behind a route, are refused by name."""
    with pytest.raises(DocumentError) as caught:
        read_routes(text, "routes.yaml")
    assert caught.value.reason == reason
