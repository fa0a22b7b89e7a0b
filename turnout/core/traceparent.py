"""W3C trace context, level 1: which `traceparent` is well formed, and the child of one. Exports no spans."""

import random
import re
from typing import Final

# Version 00 has these four fields; later versions may carry more behind them.
_FORM: Final = re.compile(
    r"(?!ff)(?:00(?=.{53}\Z)|(?!00)[0-9a-f]{2}(?=.{53}(?:-|\Z)))-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}",
    re.ASCII,
)
_TRACE: Final = slice(3, 35)
_FLAGS: Final = slice(53, 55)
_LENGTH: Final = 55
# Seeded by the system. Span ids must differ, not resist guessing; asking the system for each costs a call into it.
_random_bits: Final = random.Random().getrandbits  # noqa: S311


def accepted(offered: str) -> str | None:
    """Return the four fields that are used of a well-formed header, or None: a broken one is as good as none."""
    return offered[:_LENGTH] if _FORM.match(offered) else None


def trace_id(traceparent: str) -> str:
    """Return the trace's id of an accepted header."""
    return traceparent[_TRACE]


def child(traceparent: str) -> str:
    """Return the header of a new span, in the trace and with the flags of an accepted one."""
    return f"00-{traceparent[_TRACE]}-{_random_bits(64) or 1:016x}-{traceparent[_FLAGS]}"
