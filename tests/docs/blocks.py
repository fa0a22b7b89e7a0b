"""Finds the fenced blocks of the documents."""

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# `sh` and `python` blocks are run; the others only show.
SHOWN: Final = {"json", "yaml", "toml", "text", "java", "scala", "promql"}
RUN: Final = {"sh", "python"}


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Return where it stands."""
        return f"{self.file}:{self.line}"


def documents() -> list[Path]:
    """Return every document that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")])


def blocks() -> list[Block]:
    """Return all fenced blocks, in order."""
    found = []
    for path in documents():
        text = path.read_text()
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(path.relative_to(ROOT).as_posix(), line, match[1], match[2]))
    return found
