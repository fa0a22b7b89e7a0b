"""What both doors read from a request's surroundings: request id, deadline, version, reserved parameters."""

import random
import re
from collections.abc import Mapping
from typing import Final

from turnout.core.clock import Deadline
from turnout.core.errors import InvalidInput, NotFound
from turnout.core.ids import parse_number
from turnout.core.request import Parameter

HEADER_REQUEST_ID: Final = "turnout-request-id"
HEADER_VERSION: Final = "turnout-version"
HEADER_GENERATION: Final = "turnout-generation"
HEADER_FALLBACK: Final = "turnout-fallback"
HEADER_DEADLINE_MS: Final = "turnout-deadline-ms"

SHARED_MEMORY: Final = "shared_memory_region"
MAX_INPUTS: Final = 16_384

_HEADER: Final = f"header {HEADER_DEADLINE_MS}"
# Seeded by the system. Ids must differ, not resist guessing; asking the system for each costs a call into it.
_random_bits: Final = random.Random().getrandbits  # noqa: S311
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_MAX_DEADLINE_MS: Final = 86_400_000
# Numbers of so many digits are within it.
_PLAIN_DIGITS: Final = 7


def request_id(offered: str | None) -> str:
    """Return the caller's request id when it is valid (1 to 128 of `A-Za-z0-9._:-`), else a fresh one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"{_random_bits(128):032x}"


def version_number(text: str | None, route: str) -> int | None:
    """Read the path's version. Raises NotFound: a version that is no number exists nowhere."""
    if text is None or text == "":
        return None
    try:
        return parse_number(text)
    except ValueError as error:
        raise NotFound(f"Request for unknown model: '{route}' has no version '{text}'") from error


def caller_deadline(
    header_ms: str | None, parameters: Mapping[str, Parameter], since_s: float, transport_s: float | None = None
) -> Deadline | None:
    """Return the earliest deadline that the caller named, or None (DESIGN 6).

    `turnout-deadline-ms` as header or parameter, Triton's `timeout` parameter in microseconds (0 means none), and
    the transport's own seconds left. The caller's time runs from `since_s`. Raises InvalidInput naming the field.
    """
    found: list[float] = []
    if header_ms is not None:
        found.append(deadline_header_s(header_ms))
    if parameters:
        parameter = parameters.get(HEADER_DEADLINE_MS)
        if parameter is not None:
            found.append(_milliseconds(f"parameter {HEADER_DEADLINE_MS}", parameter) / 1000)
        microseconds = _whole("parameter timeout", parameters.get("timeout", 0))
        if microseconds < 0:
            raise InvalidInput("parameter timeout: microseconds must not be negative")
        if microseconds:
            found.append(min(microseconds / 1e6, _MAX_DEADLINE_MS / 1000))
    if transport_s is not None:
        found.append(transport_s)
    return Deadline(since_s + min(found)) if found else None


def deadline_header_s(header_ms: str) -> float:
    """Return the seconds that a `turnout-deadline-ms` header gives. Raises InvalidInput naming it."""
    if header_ms.isdecimal() and len(header_ms) <= _PLAIN_DIGITS and (plain := int(header_ms)):
        return plain / 1000
    return _milliseconds(_HEADER, header_ms) / 1000


def refuse_sequence(parameters: Mapping[str, Parameter]) -> None:
    """Raise InvalidInput for one request of a sequence: no version here keeps state from one request to the next.

    A `sequence_id` of 0 or "" means none (FIELD 4.5).
    """
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise InvalidInput("parameter sequence_id: sequences are not offered, no model keeps state between requests")


def _milliseconds(field: str, value: Parameter) -> int:
    milliseconds = _whole(field, value)
    if milliseconds < 1:
        raise InvalidInput(f"{field}: must be at least 1 millisecond, got {milliseconds}")
    return min(milliseconds, _MAX_DEADLINE_MS)


def _whole(field: str, value: Parameter) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidInput(f"{field}: must be a whole number, got {value!r:.40}")
