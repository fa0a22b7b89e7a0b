"""Turns YAML text into plain values and the line of each. Knows no types of ours; does no I/O.

Scalars follow YAML 1.2's core schema: only `true` and `false` are booleans, `010` is ten, dates stay text; infinity
and NaN, which JSON cannot carry, stay text too. Aliases, tags, merge keys, duplicate keys, deep nesting and numbers
beyond 64 bits are refused.
"""

import math
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""

MAX_DEPTH: Final = 50
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class DocumentError(ValueError):
    """A document that cannot be taken, as `source:line: reason`."""

    def __init__(self, source: str, line: int, reason: str) -> None:
        super().__init__(f"{source}:{line}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


def read(text: str, source: str) -> tuple[object, dict[Path, int]]:
    """Return the values of one YAML document and their lines. Raises DocumentError with the line and the reason."""
    lines: dict[Path, int] = {}
    try:
        # Events, not nodes: libyaml's node builder recurses without a bound and can end the process.
        return _Reader(source, yaml.parse(text, Loader=_LOADER), lines).document(), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(source, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise DocumentError(source, 1, f"not YAML: {' '.join(str(error).split())}") from error


class _Reader:
    """Builds plain values from parser events, noting the line of each."""

    def __init__(self, source: str, events: Iterator[yaml.Event], lines: dict[Path, int]) -> None:
        self._source = source
        self._events = events
        self._lines = lines

    def document(self) -> object:
        data: object = {}
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document; one file holds one")
                data = self._value(next(self._events), (), 0)
        return {} if data is None else data

    def _value(self, event: yaml.Event, path: Path, depth: int) -> object:
        self._lines.setdefault(path, _line(event))
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH}")
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise self._error(event, "aliases are not taken")
        if event.tag is not None:
            raise self._error(event, f"tags are not taken ({event.tag})")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._mapping(path, depth) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path, depth)

    def _mapping(self, path: Path, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self._error(event, "keys must be plain text")
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self._error(event, "merge keys are not taken")
            if key in result:
                raise self._error(event, f"key '{key}' appears twice")
            self._lines[(*path, key)] = _line(event)
            result[key] = self._value(next(self._events), (*path, key), depth + 1)
        return result

    def _sequence(self, path: Path, depth: int) -> list[object]:
        result: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, (*path, len(result)), depth + 1))
        return result

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if text in _SPECIAL:
            return _SPECIAL[text]
        if _INT.fullmatch(text):
            return self._integer(event)
        return self._float(event) if _FLOAT.fullmatch(text) else text

    def _integer(self, event: yaml.ScalarEvent) -> int:
        text: str = event.value
        # The length is checked first: Python refuses to read thousands of digits with an error of its own.
        number = MAX_INTEGER + 1 if len(text) > 64 else int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if not MIN_INTEGER <= number <= MAX_INTEGER:
            raise self._error(event, "a whole number beyond 64 bits")
        return number

    def _float(self, event: yaml.ScalarEvent) -> float:
        number = float(event.value)
        if math.isinf(number):
            raise self._error(event, f"{event.value} is beyond the largest number")
        return number

    def _error(self, event: yaml.Event, reason: str) -> DocumentError:
        return DocumentError(self._source, _line(event), reason)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
