"""The table of the field study's lessons is whole: every bullet is held by tests that exist."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# How many bullets each section of the study has.
SECTIONS = {"1.3": 12, "4.1": 7, "4.2": 7, "4.3": 4, "4.4": 6, "4.5": 7}
BULLETS = tomllib.loads((Path(__file__).parent / "field_map.toml").read_text())["bullet"]


@cache
def functions_in(path):
    """Return the names of the test functions in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_bullet_stands_in_the_table_once_and_in_order():
    """A lesson of the study that nobody mapped fails here."""
    expected = [f"{section}.{number + 1}" for section, count in SECTIONS.items() for number in range(count)]
    assert [bullet["id"] for bullet in BULLETS] == expected


@pytest.mark.parametrize("bullet", BULLETS, ids=[bullet["id"] for bullet in BULLETS])
def test_every_bullet_names_tests_that_exist(bullet):
    """A test that is renamed or removed takes its bullet with it, unless the table follows."""
    assert bullet["text"]
    assert bullet["tests"]
    for name in bullet["tests"]:
        path, _, function = name.partition("::")
        assert function in functions_in(path), name
