"""How counted instructions are held against the budget."""

from bench.counted import BARE
from bench.instructions import Budget, Place, over

HERE = Place("3.11.7", "1.32.0", "AuthenticAMD 25")
ELSEWHERE = Place("3.13.1", "1.32.0", "GenuineIntel 6")
BUDGET = Budget(HERE, "valgrind-3.19.0", "abc", {BARE: 1000, "one row": 2000})


def test_in_the_recorded_place_a_count_may_be_a_tenth_over():
    """Up to 1.10 of the committed count is allowed, one more is not, whatever the bare handler costs."""
    assert over({BARE: 1100, "one row": 2200}, HERE, BUDGET) == {}
    assert list(over({BARE: 1000, "one row": 2201}, HERE, BUDGET)) == ["one row"]


def test_elsewhere_the_ratio_to_the_bare_handler_is_held():
    """Where all costs twice as much nothing is wrong; where only the gateway does, it is."""
    assert over({BARE: 2000, "one row": 4000}, ELSEWHERE, BUDGET) == {}
    assert list(over({BARE: 1000, "one row": 4000}, ELSEWHERE, BUDGET)) == ["one row"]


def test_a_kind_without_a_budget_is_over_it():
    """A new kind of request must get a budget before it passes."""
    assert list(over({BARE: 1000, "new": 1}, HERE, BUDGET)) == ["new"]
