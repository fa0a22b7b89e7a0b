"""Reads YAML text into typed structs, with line numbers and nearest names in every complaint. Does no I/O."""

import difflib
import enum
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from turnout.core.yaml_text import DocumentError, Path, read

__all__ = ["Document", "DocumentError", "Path", "nearest", "parse", "plain_words", "written"]

T = TypeVar("T")

_SAID: Final = re.compile(r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_SEGMENT: Final = re.compile(r"\.(?P<field>[^.\[\]]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_WORDS: Final = {
    "object": "a mapping",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


class Document:
    """Parsed YAML: plain `data`, and the line on which each value stands."""

    def __init__(self, source: str, data: object, lines: Mapping[Path, int], within: Path = ()) -> None:
        self.source = source
        self.data = data
        self._lines = lines
        self._within = within

    def line(self, path: Path) -> int:
        """Return the line (from 1) of the value at `path`, or of its nearest parent."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error(self, path: Path, reason: str) -> DocumentError:
        """Return a complaint about the value at `path`."""
        return DocumentError(self.source, self.line(path), reason)

    def part(self, key: str) -> "Document":
        """Return the value under a top-level key as a document of its own; an empty mapping where it is absent."""
        data = self.data.get(key, {}) if isinstance(self.data, dict) else {}
        lines = {path[1:]: line for path, line in self._lines.items() if path[:1] == (key,)}
        return Document(self.source, data, {(): self.line((key,)), **lines}, (*self._within, key))

    def decode(self, wanted: type[T]) -> T:
        """Return the data as `wanted`. Raises DocumentError for unknown keys, wrong types and broken rules."""
        try:
            return msgspec.convert(self.data, wanted)
        except msgspec.ValidationError as error:
            raise self._explain(str(error), wanted) from error

    def _explain(self, message: str, wanted: Any) -> DocumentError:
        said = _SAID.fullmatch(message)
        reason = said["reason"] if said else message
        pattern = list(_segments(said["path"])) if said and said["path"] else []
        if said and said["key"]:
            pattern.append(None)
        path = self._locate(message, pattern, wanted)
        here = _types_at(wanted, path)
        unknown = _UNKNOWN.fullmatch(reason)
        if unknown:
            name = unknown["name"]
            return self.error((*path, name), f"unknown key '{name}'{_alternatives(name, _keys(here))}")
        where = written((*self._within, *path))
        return self.error(path, f"{where}: {plain_words(reason, here)}" if where else plain_words(reason, here))

    def _locate(self, message: str, pattern: list[str | int | None], wanted: Any) -> Path:
        """Find which keys msgspec's `[...]` stands for: those with which alone the same complaint comes back."""
        data = self.data
        path: Path = ()
        for segment in pattern:
            if segment is not None:
                path = (*path, segment)
                continue
            mapping = _value_at(data, path)
            for key, value in mapping.items():
                alone = _replaced(data, path, {key: value})
                if _complaint(alone, wanted) == message:
                    data, path = alone, (*path, key)
                    break
            else:
                return path
        return path


def parse(text: str, source: str) -> Document:
    """Parse one YAML document. Raises DocumentError for broken YAML, duplicate keys, aliases, tags and deep nesting."""
    data, lines = read(text, source)
    return Document(source, data, lines)


def written(path: Path) -> str:
    """Return a path as people write it: `routes.fraud.match[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name most like `name`, or nothing."""
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _segments(path: str) -> Iterator[str | int | None]:
    """Cut msgspec's path into keys and positions; None stands for `[...]`, a key that it does not tell."""
    for found in _SEGMENT.finditer(path):
        if found["any"]:
            yield None
        elif found["index"]:
            yield int(found["index"])
        else:
            yield found["field"]


def _complaint(data: object, wanted: Any) -> str | None:
    try:
        msgspec.convert(data, wanted)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _value_at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _replaced(data: Any, path: Path, value: object) -> Any:
    """Return a copy of `data` with another value at `path`."""
    if not path:
        return value
    copy: Any = list(data) if isinstance(data, list) else dict(data)
    copy[path[0]] = _replaced(data[path[0]], path[1:], value)
    return copy


def _types_at(wanted: Any, path: Path) -> list[Any]:
    """Return the types that may stand at `path`."""
    found = _members(wanted)
    for part in path:
        found = [inner for kind in found for inner in _members(_inside(kind, part))]
    return found


def _inside(kind: Any, part: str | int) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
        return get_type_hints(kind).get(fields.get(str(part), ""))
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    return arguments[0] if arguments and isinstance(part, int) else None


def _members(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return [inner for member in get_args(kind) for inner in _members(member)]
    return [] if kind is None else [kind]


def _keys(kinds: Iterable[Any]) -> set[str]:
    structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    return {field.encode_name for kind in structs for field in msgspec.structs.fields(kind)}


def _alternatives(name: str, known: set[str]) -> str:
    return nearest(name, known) or f"; known here: {', '.join(sorted(known))}"


def plain_words(reason: str, here: Iterable[Any] = ()) -> str:
    """Say msgspec's reason in the words of YAML."""
    missing = re.fullmatch(r"Object missing required field `(.*)`", reason)
    if missing:
        return f"key '{missing[1]}' is missing"
    if reason.startswith("Invalid enum value"):
        kinds = [kind for kind in here if isinstance(kind, type)]
        choices = [str(member.value) for kind in kinds if issubclass(kind, enum.Enum) for member in kind]
        structs = [kind for kind in kinds if issubclass(kind, msgspec.Struct)]
        choices += [_mapping(kind) for kind in structs]
        return f"{reason[0].lower()}{reason[1:]}; one of {', '.join(choices)}"
    if not reason.startswith("Expected"):
        return reason
    return re.sub(r"`([a-z |]+)`", _said_types, f"e{reason[1:]}")


def _mapping(kind: type[msgspec.Struct]) -> str:
    return "{" + ", ".join(f"{field.encode_name}: …" for field in msgspec.structs.fields(kind)) + "}"


def _said_types(found: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(word, word) for word in found[1].split(" | "))
