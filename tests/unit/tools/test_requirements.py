"""The locked requirement files: complete, of one mind, pinned by hash, without addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FILES = ("build", "dev", "serve", "spark", "tour", "uv")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name):
    """Return a requirement file's pins: (package, version, marker) with the number of its hashes."""
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / f"{name}.txt").read_text()):
        line = entry.splitlines()[0].rstrip(" \\")
        requirement = Requirement(line)
        (version,) = requirement.specifier
        assert version.operator == "=="
        key = (canonicalize_name(requirement.name), version.version, str(requirement.marker or ""))
        found[key] = entry.count("--hash=sha256:")
    return found


def group(name):
    """Return the names of a dependency group, included groups among them."""
    names = set()
    for entry in PROJECT["dependency-groups"][name]:
        names |= (
            group(entry["include-group"]) if isinstance(entry, dict) else {canonicalize_name(Requirement(entry).name)}
        )
    return names


def extra(*names):
    """Return the names that the project and some of its extras ask for."""
    asked = [*PROJECT["project"]["dependencies"]]
    for name in names:
        asked += PROJECT["project"]["optional-dependencies"][name]
    return {canonicalize_name(Requirement(entry).name) for entry in asked}


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes_and_no_address(name):
    """Each line names one version and its hashes; no file records where it was downloaded."""
    assert all(pins(name).values())
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", sorted(set(FILES) - {"dev"}))
def test_every_file_is_part_of_the_development_set(name):
    """What one file pins the development set pins alike, so that one environment can hold both."""
    assert set(pins(name)) <= set(pins("dev"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("serve", extra("sklearn")),
        ("tour", extra("sklearn", "convert") | group("tour")),
        ("dev", extra("sklearn", "convert") | group("tour") | group("dev")),
        ("spark", group("spark")),
        ("build", group("build")),
        ("uv", group("bootstrap")),
    ],
)
def test_file_has_what_the_project_asks_for(name, wanted):
    """Each dependency that pyproject.toml declares is pinned in the files that carry it."""
    assert wanted <= {package for package, _, _ in pins(name)}
