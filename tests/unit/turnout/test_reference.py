"""docs/reference says what the code says."""

from pathlib import Path

import pytest

from turnout.control.publish.routes_keys import RoutesFile
from turnout.core.errors import ErrorCode
from turnout.core.manifest import OPTIONS, Manifest
from turnout.reference.__main__ import main
from turnout.reference.keys import keys
from turnout.reference.pages import pages

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_page_is_what_the_code_makes(name):
    """Made anew, the committed page is the same: else run `python -m turnout.reference`."""
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name]


def test_all_pages_are_written(tmp_path):
    """The command writes each page once."""
    main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(pages())


@pytest.mark.parametrize("struct", [Manifest, RoutesFile, *OPTIONS.values()], ids=lambda kind: kind.__name__)
def test_every_key_says_what_it_means(struct):
    """No key of a file is left without its sentence."""
    assert [key.path for key in keys(struct) if not key.meaning.endswith(".")] == []


def test_every_error_has_its_row():
    """The table is total."""
    assert all(f"| `{code}` |" in pages()["errors.md"] for code in ErrorCode)
