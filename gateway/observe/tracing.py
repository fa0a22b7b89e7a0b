"""W3C trace context: reads `traceparent`, and names a child of it for the call to the model. Exports no spans."""

import os
import re
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_ZERO_TRACE: Final = "0" * 32
_ZERO_PARENT: Final = "0" * 16


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace's id, or None when the header is absent or breaks the W3C form."""
    found = _read(traceparent)
    return found["trace"] if found else None


def child(traceparent: str | None) -> str | None:
    """Return the header of a new span in the same trace with the same flags; None without a valid parent."""
    found = _read(traceparent)
    if found is None:
        return None
    return f"00-{found['trace']}-{os.urandom(8).hex()}-{found['flags']}"


def _read(traceparent: str | None) -> re.Match[str] | None:
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None or found["trace"] == _ZERO_TRACE or found["parent"] == _ZERO_PARENT or found["version"] == "ff":
        return None
    if found["version"] == "00" and found["rest"] is not None:
        return None  # only later versions may carry more fields
    return found
