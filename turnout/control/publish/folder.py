"""Reads FOLDER: model folders, flat or with numbered versions, each version's bytes into the blob folder (DESIGN 5).

Every broken folder is a named problem and the others go on. Nothing is taken while it is still being written. It
gives out no numbers and records nothing: `catalogue.py` does.
"""

import contextlib
import errno
import hashlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from turnout.control.publish.blobs import BlobChanged, BlobFolder
from turnout.control.publish.settle import QUIET_S, Seen, unsettled
from turnout.control.publish.tree import FolderProblem, StillWritten, checked, entries, shown, states_below
from turnout.control.publish.version_folder import MANIFEST, VersionFolder, read_version
from turnout.core.clock import Deadline, wall_s
from turnout.core.ids import NAME_RULE, is_name, parse_number
from turnout.core.manifest import Cast, DeclaredSignature, Manifest, Rename, Runtime
from turnout.core.snapshot import FileEntry, VersionEntry

_LOOK_AGAIN_S: Final = 0.1
FLAT: Final = 0
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FoundVersion(NamedTuple):
    """A version as it lies in FOLDER: `entry.number` is its folder's, or FLAT while it has none."""

    entry: VersionEntry
    lineage: dict[str, Any]


class FoundModel(NamedTuple):
    """A model's folder. `numbers` are its version folders, readable or not; FLAT alone for a flat one.

    `problems`: number -> why that version cannot be taken.
    """

    folder: str
    model: str
    numbers: tuple[int, ...]
    versions: tuple[FoundVersion, ...]
    problems: dict[int, str]


class Patience:
    """How long to wait for files that are still being written: until a deadline, or until control leaves.

    A file is at rest once it has not changed for about `quiet_s`.
    """

    def __init__(self, seconds: float, leaving: threading.Event, quiet_s: float = QUIET_S) -> None:
        self.quiet_s = quiet_s
        self._deadline = Deadline.after(seconds)
        self._leaving = leaving

    def wait(self) -> bool:
        """Wait a moment; False when the time is over."""
        return not self._deadline.passed and not self._leaving.wait(_LOOK_AGAIN_S)


class _Covered(msgspec.Struct, frozen=True):
    """Exactly what a version's digest covers (DESIGN 5); `files` are the artifact's and the golden file's."""

    runtime: Runtime
    artifact: str
    files: tuple[FileEntry, ...]
    signature: DeclaredSignature
    rename: Rename
    cast: Cast
    options: dict[str, Any]
    golden: str | None


class _Pending:
    """A version folder that is to be read."""

    def __init__(self, model: Path, number: int, default: Path | None, quiet_s: float) -> None:
        self.folder = model.name
        self.path = model / str(number) if number != FLAT else model
        self.number = number
        self.default = default
        self._quiet_s = quiet_s
        self._first_looked_s = wall_s()
        self.manifest: Manifest | None = None
        self.entry: VersionEntry | None = None
        self.problem = ""

    def read(self, boundary: Path, blobs: BlobFolder) -> None:
        """Take the version in. Raises FolderProblem, of it StillWritten when looking again may help."""
        try:
            before = self._states()
            found = self._found(boundary, before)
            before |= {file: Seen.of(file) for file in found.files}
            busy = self._unsettled(before)
            if busy:
                raise StillWritten(_relative(busy, self.path))
            files = tuple(_file_entry(file, self.path, blobs) for file in found.files)
            after = self._states() | {file: Seen.of(file) for file in found.files}
        except BlobChanged as error:
            raise StillWritten from error
        except OSError as error:
            what = "kept under STATE" if error.errno in _NO_ROOM else "read"
            raise FolderProblem(f"cannot be {what}: {error.strerror or error}") from error
        if after != before:
            raise StillWritten
        self.manifest = found.manifest
        self.entry = _entry(self.number, found, files)

    def changed_after(self, at_s: float) -> bool:
        """Tell whether anything in the folder changed after a wall time. Raises FolderProblem."""
        return any(state.ctime_ns > at_s * 1e9 for state in self._states().values())

    def _found(self, boundary: Path, states: dict[Path, Seen]) -> VersionFolder:
        try:
            return read_version(self.path, self.default, boundary)
        except FolderProblem as problem:
            if self._unsettled(states):
                raise StillWritten(str(problem)) from problem
            raise

    def _unsettled(self, states: dict[Path, Seen]) -> str | None:
        return unsettled(states, self._first_looked_s, quiet_s=self._quiet_s)

    def _states(self) -> dict[Path, Seen]:
        return states_below(self.path) | ({self.default: Seen.of(self.default)} if self.default else {})


def read_folder(
    root: Path, blobs: BlobFolder, patience: Patience, only: frozenset[str] | None = None
) -> tuple[list[FoundModel], dict[str, str]]:
    """Read all model folders of FOLDER, or `only` some; return the models, and problems of whole folders by name.

    Blocks, for as long as `patience` lasts when something is being written. Raises OSError when FOLDER is not there.
    """
    boundary = root.resolve(strict=True)
    problems: dict[str, str] = {}
    pending: list[_Pending] = []
    for path in sorted(boundary.iterdir()):
        if path.name.startswith((".", "_")) or (only is not None and path.name not in only):
            continue
        try:
            if checked(path, boundary).is_dir():
                pending += _versions_in(path, boundary, patience.quiet_s)
        except FolderProblem as problem:
            problems[shown(path.name)] = str(problem)
    _read_all(pending, boundary, blobs, patience)
    folders = sorted({version.folder for version in pending})
    return [_model(name, [version for version in pending if version.folder == name]) for name in folders], problems


def changed_digests(
    root: Path, blobs: BlobFolder, patience: Patience, since_s: Mapping[tuple[str, int], float]
) -> dict[tuple[str, int], str]:
    """Return the digests that numbered folders, by folder and number, have now where something changed in them.

    `since_s` is when each was read before, wall time: one in which nothing changed since then is not read.
    Blocks as `read_folder` does. Raises OSError.
    """
    boundary = root.resolve(strict=True)
    pending: list[_Pending] = []
    for folder in sorted({folder for folder, _ in since_s}):
        with contextlib.suppress(FolderProblem):
            versions = _versions_in(boundary / folder, boundary, patience.quiet_s)
            pending += [
                version
                for version in versions
                if (at_s := since_s.get((folder, version.number))) is not None and version.changed_after(at_s)
            ]
    _read_all(pending, boundary, blobs, patience)
    return {(version.folder, version.number): version.entry.digest for version in pending if version.entry}


def _read_all(pending: Iterable[_Pending], boundary: Path, blobs: BlobFolder, patience: Patience) -> None:
    """Read each version, again and again those that are being written, so that none holds up another."""
    left = list(pending)
    while left:
        busy: list[_Pending] = []
        for version in left:
            try:
                version.read(boundary, blobs)
                version.problem = ""
            except StillWritten as problem:
                version.problem = str(problem)
                busy.append(version)
            except FolderProblem as problem:
                version.problem = str(problem)
        left = busy if busy and patience.wait() else []


def _versions_in(folder: Path, boundary: Path, quiet_s: float) -> list[_Pending]:
    if not is_name(folder.name):
        raise FolderProblem(f"folder '{folder.name}': {NAME_RULE}")
    inside = entries(folder, boundary)
    default = inside.get(MANIFEST)
    numbers = sorted(number for name, path in inside.items() if path.is_dir() and (number := _number(name)))
    return [_Pending(folder, number, default, quiet_s) for number in numbers] or [_Pending(folder, FLAT, None, quiet_s)]


def _number(name: str) -> int | None:
    try:
        return parse_number(name)
    except ValueError:
        return None


def _model(folder: str, versions: list[_Pending]) -> FoundModel:
    said = [version.manifest.model for version in versions if version.manifest and version.manifest.model]
    model = said[0] if said else folder
    problems = {version.number: version.problem for version in versions if version.problem}
    found: list[FoundVersion] = []
    for version in versions:
        if version.manifest is None or version.entry is None:
            continue
        if version.manifest.model not in (None, model):
            problems[version.number] = f"{MANIFEST} says model '{version.manifest.model}', another one says '{model}'"
            continue
        entry = msgspec.structs.replace(version.entry, model=model)
        found.append(FoundVersion(entry, version.manifest.lineage))
    return FoundModel(folder, model, tuple(version.number for version in versions), tuple(found), problems)


def _file_entry(file: Path, folder: Path, blobs: BlobFolder) -> FileEntry:
    sha256, size = blobs.put(file)
    return FileEntry(_relative(file, folder), sha256, size)


def _relative(path: Path | str, folder: Path) -> str:
    path = Path(path)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _entry(number: int, found: VersionFolder, files: tuple[FileEntry, ...]) -> VersionEntry:
    manifest = found.manifest
    covered = _Covered(
        runtime=found.runtime,
        artifact=found.artifact,
        files=files,
        signature=manifest.signature,
        rename=manifest.rename,
        cast=manifest.cast,
        options=manifest.options,
        golden=manifest.golden,
    )
    canonical = msgspec.json.encode(covered, order="deterministic")
    return VersionEntry(
        model="",
        number=number,
        digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}",
        batching=manifest.batching,
        limits=manifest.limits,
        metrics=manifest.metrics,
        **{field: getattr(covered, field) for field in _Covered.__struct_fields__},
    )
