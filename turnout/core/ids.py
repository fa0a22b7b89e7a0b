"""Names and version references, parsed once and trusted afterwards."""

import re
from typing import Final, Self

import msgspec

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
NAME_RULE: Final = "names are 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit"


def is_name(text: str) -> bool:
    """Tell whether `text` may name a model or a route (DESIGN 5)."""
    return _NAME.fullmatch(text) is not None


class VersionRef(msgspec.Struct, frozen=True, order=True):
    """A model's version: written `model@number`."""

    model: str
    number: int

    def __str__(self) -> str:
        """Return the written form."""
        return f"{self.model}@{self.number}"

    @classmethod
    def parse(cls, text: str, *, default_model: str | None = None) -> Self:
        """Read `model@number`, or a bare `number` of `default_model`.

        Raises ValueError naming the fault when the text is neither.
        """
        model, at, number = text.rpartition("@")
        if not at:
            if default_model is None:
                raise ValueError(f"{text!r} is not a version; write model@number")
            model = default_model
        if not is_name(model):
            raise ValueError(f"{model!r} is not a model name; {NAME_RULE}")
        return cls(model, parse_number(number))


def parse_number(text: str) -> int:
    """Read a version number: digits without sign or leading zero, at least 1. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or text.startswith("0") or len(text) > 18:
        raise ValueError(f"{text!r} is not a version number; write a whole number from 1 up")
    return int(text)
