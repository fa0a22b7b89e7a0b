"""W3C trace context."""

import pytest

from turnout.core.traceparent import accepted, child, trace_id

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


def test_child_stays_in_its_trace():
    """A child has the trace and the flags of its parent, and a span of its own."""
    assert accepted(VALID) == VALID
    first, second = child(VALID), child(VALID)
    assert trace_id(first) == TRACE
    assert first.endswith("-01")
    assert len({first.split("-")[2], second.split("-")[2], PARENT}) == 3


def test_later_versions_are_read_by_the_first_fields():
    """A header of a later version may carry more; it is answered in version 00."""
    taken = accepted(f"cc-{TRACE}-{PARENT}-00-more")
    assert taken is not None
    assert trace_id(taken) == TRACE
    assert child(taken).startswith(f"00-{TRACE}-")
    assert child(taken).endswith("-00")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "nonsense",
        VALID.upper(),
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" {VALID}",
        f"{VALID}\n",
        f"cc-{TRACE}-{PARENT}-01more",
    ],
)
def test_broken_headers_start_nothing(broken):
    """What breaks the form is as good as no header."""
    assert accepted(broken) is None
