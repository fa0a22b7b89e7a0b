"""Turns structs that describe files into tables of keys: type, default and meaning, all from the code. Pure."""

import enum
import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from turnout.core.tensor import Datatype

_WORDS: Final[dict[Any, str]] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    types.NoneType: "nothing",
    Any: "anything",
    Datatype: "datatype",
}
_BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Key(NamedTuple):
    """A key of a file, by its path from the top."""

    path: str
    type: str
    default: str
    meaning: str


def keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a struct, each followed by those below it."""
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        path = f"{prefix}{field.encode_name}"
        yield Key(path, _words(hint), _default(field), _meaning(hint))
        for below, step in _below(hint):
            yield from keys(below, f"{path}{step}.")


def table(struct: type[msgspec.Struct], prefix: str = "") -> str:
    """Return a struct's keys as a Markdown table."""
    rows = [f"| `{key.path}` | {key.type} | {key.default} | {key.meaning} |" for key in keys(struct, prefix)]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _below(hint: Any) -> Iterator[tuple[type[msgspec.Struct], str]]:
    """Yield the structs inside a type that are explained by their own keys, and how a path leads to them."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if any(_meaning(inner) for inner in get_type_hints(hint, include_extras=True).values()):
            yield hint, ""
        return
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        yield from _below(arguments[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for member in arguments:
            yield from _below(member)
    elif get_origin(hint) is dict:
        yield from ((below, f".NAME{step}") for below, step in _below(arguments[1]))
    elif get_origin(hint) is tuple:
        yield from ((below, f"[]{step}") for below, step in _below(arguments[0]))


def _meaning(hint: Any) -> str:
    found = [meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return next((description for description in reversed(found) if description), "")


def _words(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    if get_origin(hint) is not None:
        return _generic_words(hint, get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    return "mapping"


def _generic_words(hint: Any, arguments: tuple[Any, ...]) -> str:
    origin = get_origin(hint)
    if origin is Annotated:
        return _words(arguments[0]) + _bounds(hint)
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"mapping to {_words(arguments[1])}"
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    return " or ".join(dict.fromkeys(_words(member) for member in arguments if member is not types.NoneType))


def _bounds(hint: Any) -> str:
    bounds = [
        f"{sign} {value:,}"
        for meta in hint.__metadata__
        if isinstance(meta, msgspec.Meta)
        for name, sign in _BOUNDS.items()
        if (value := getattr(meta, name)) is not None
    ]
    entries = [
        f", at most {meta.max_length:,} entries"
        for meta in hint.__metadata__
        if isinstance(meta, msgspec.Meta) and meta.max_length is not None
    ]
    return (f" {', '.join(bounds)}" if bounds else "") + "".join(entries)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or isinstance(value, msgspec.Struct):
        return ""
    if isinstance(value, dict | tuple | list) and not value:
        return "none"
    return f"`{json.dumps(msgspec.to_builtins(value), ensure_ascii=False)}`"
