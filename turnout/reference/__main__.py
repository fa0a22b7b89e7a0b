"""`python -m turnout.reference [FOLDER]`: writes the pages of docs/reference that are made from code."""

import sys
from pathlib import Path

from turnout.reference.pages import pages


def main(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
