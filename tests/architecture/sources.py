"""The project's own Python files, as the architecture tests see them."""

import ast
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("turnout", "gateway", "adapters")
TREES: Final = (*PACKAGES, "models", "bench", "tests")


@cache
def files(*trees: str) -> tuple[Path, ...]:
    """Return the hand-written Python files below these folders; generated wire code is left out."""
    found = (path for tree in trees for path in sorted((ROOT / tree).rglob("*.py")))
    return tuple(path for path in found if "_pb2" not in path.name)


@cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(), str(path))


def named(path: Path) -> str:
    """Return a file's path as the project writes it."""
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """Return a file's dotted module name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_roots(tree: ast.AST) -> set[str]:
    """Return the first names of every import, at any depth of the code."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots
