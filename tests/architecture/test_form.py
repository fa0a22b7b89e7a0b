"""Size, words and docstrings of the code."""

import ast
import re

import pytest

from tests.architecture import sources

MAX_LINES = 400
# Words that docs/glossary.md replaces (STYLE B there), and names that say nothing.
BANNED = {
    "affinity",
    "baseline",
    "candidate",
    "deployment",
    "endpoint",
    "flavor",
    "flavour",
    "frontend",
    "helper",
    "impl",
    "infer",
    "ingress",
    "manager",
    "mirror",
    "predictor",
    "replica",
    "servable",
    "util",
    "utils",
}
# `infer` stands where the protocol's own names are spoken.
WIRE_NAMES = ("gateway/doors/", "gateway/http_server.py", "turnout/core/wire/", "turnout/client.py")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def identifiers(tree):
    """Yield every name that a file gives: of classes, functions, arguments and variables."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name


@pytest.mark.parametrize("path", sources.files(*sources.TREES), ids=sources.named)
def test_module_is_short(path):
    """No module is longer than 400 lines."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", sources.files(*sources.PACKAGES, "models"), ids=sources.named)
def test_names_use_the_vocabulary(path):
    """No identifier uses a word for which the glossary has another."""
    at_wire = sources.named(path).startswith(WIRE_NAMES)
    banned = BANNED - {"infer"} if at_wire else BANNED
    found = [
        f"{sources.named(path)}:{line}: {name}"
        for line, name in identifiers(sources.parsed(path))
        if banned & {word.lower() for word in _WORD.findall(name)}
    ]
    assert found == []


@pytest.mark.parametrize("path", sources.files(*sources.PACKAGES, "models"), ids=sources.named)
def test_module_says_what_it_is_for(path):
    """Every module with code has a docstring, and so has everything public in it."""
    tree = sources.parsed(path)
    if not tree.body:
        return
    silent = [] if ast.get_docstring(tree) else ["module"]
    public = (node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    for holder in (tree, *public):
        silent += [
            f"{node.name}:{node.lineno}"
            for node in holder.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert silent == []


@pytest.mark.parametrize("path", sources.files("tests"), ids=sources.named)
def test_tests_say_what_they_show(path):
    """Every test has a docstring that says the behaviour, and no test is skipped or sleeps to synchronise."""
    if not path.name.startswith("test_"):
        return
    tree = sources.parsed(path)
    silent = [
        f"{node.name}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    marks = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert silent == []
    assert not {"pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.skip", "time.sleep"} & set(marks)


@pytest.mark.parametrize("path", sources.files(*sources.PACKAGES, "models"), ids=sources.named)
def test_no_bare_exemption_from_the_linters(path):
    """An exemption from a linter names its rule, and no work is left as a note."""
    text = path.read_text()
    assert not re.search(r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)", text)
    assert not re.search(r"\b(T[O]DO|F[I]XME|X[X]X)\b", text)
