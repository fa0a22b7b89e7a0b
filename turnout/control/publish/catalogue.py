"""Gives numbers to what was found in FOLDER, and says what of it cannot be taken. Pure.

A numbered folder keeps its number, and its bytes for ever. A flat folder is version 1; changed bytes become the next
number.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from turnout.control.publish.folder import FLAT, FoundModel, FoundVersion
from turnout.core.snapshot import VersionEntry


class Admission(NamedTuple):
    """What to record, which numbers of the model now stand in FOLDER, and problems by folder or `model@number`.

    `changed` are versions whose numbered folders hold other bytes now than were imported.
    """

    records: tuple[FoundVersion, ...]
    present: tuple[int, ...]
    problems: dict[str, str]
    changed: frozenset[str] = frozenset()


def admit(found: FoundModel, known: Mapping[str, VersionEntry]) -> Admission:
    """Judge a model folder against the versions already recorded."""
    return _flat(found, known) if found.numbers == (FLAT,) else _numbered(found, known)


def by_model(found: Iterable[FoundModel]) -> tuple[dict[str, FoundModel], dict[str, str]]:
    """Return the folder that speaks for each model, and problems of others that claim its name.

    A folder called like the model comes first, then the order of the alphabet.
    """
    chosen: dict[str, FoundModel] = {}
    problems: dict[str, str] = {}
    for model in sorted(found, key=lambda model: (model.folder != model.model, model.folder)):
        first = chosen.setdefault(model.model, model)
        if first is not model:
            problems[model.folder] = f"model '{model.model}' is already that of folder '{first.folder}'"
    return chosen, problems


def _flat(found: FoundModel, known: Mapping[str, VersionEntry]) -> Admission:
    newest = max((entry.number for entry in known.values() if entry.model == found.model), default=0)
    problems = {found.folder: found.problems[FLAT]} if FLAT in found.problems else {}
    if not found.versions:
        return Admission((), (newest,) if newest else (), problems)
    (version,) = found.versions
    before = known.get(f"{found.model}@{newest}")
    same = before is not None and before.digest == version.entry.digest
    numbered = _with_number(version, newest if same else newest + 1)
    return Admission(() if numbered.entry == before else (numbered,), (numbered.entry.number,), problems)


def _numbered(found: FoundModel, known: Mapping[str, VersionEntry]) -> Admission:
    problems: dict[str, str] = {}
    for number, reason in found.problems.items():
        ref = f"{found.model}@{number}"
        problems[f"{found.folder}/{number}" if ref in known else ref] = reason
    records: list[FoundVersion] = []
    changed: set[str] = set()
    for version in found.versions:
        ref = str(version.entry.ref)
        before = known.get(ref)
        if before is not None and before.digest != version.entry.digest:
            changed.add(ref)
            problems[f"{found.folder}/{version.entry.number}"] = (
                f"its bytes changed after {ref} was imported (then {_short(before)}, now {_short(version.entry)}); "
                f"the imported ones are kept, changed ones need a new number"
            )
        elif before != version.entry:
            records.append(version)
    recorded = {version.entry.number for version in records}
    present = [number for number in found.numbers if number in recorded or f"{found.model}@{number}" in known]
    return Admission(tuple(records), tuple(present), problems, frozenset(changed))


def _with_number(version: FoundVersion, number: int) -> FoundVersion:
    return FoundVersion(msgspec.structs.replace(version.entry, number=number), version.lineage)


def _short(entry: VersionEntry) -> str:
    return entry.digest[: len("sha256:") + 12]
