"""Lists what a model folder holds, safely: links stay inside FOLDER, nothing but files and folders, bounded."""

import contextlib
import os
from pathlib import Path
from typing import Final

from turnout.control.publish.settle import Seen

MAX_FILES: Final = 10_000
STILL_WRITTEN: Final = "still being written"


class FolderProblem(Exception):
    """A folder, or a version in it, cannot be served; the text is the reason that operators see."""

    def __init__(self, reason: str) -> None:
        super().__init__(shown(reason))


class StillWritten(FolderProblem):
    """Something in the folder is still being written; looking again later may help. `what` says more."""

    def __init__(self, what: str = "") -> None:
        super().__init__(f"{STILL_WRITTEN}: {what}" if what else STILL_WRITTEN)


def shown(name: str) -> str:
    r"""Return a name as it can be published: bytes that are no UTF-8 as `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def entries(folder: Path, boundary: Path) -> dict[str, Path]:
    """Return the entries of a folder by name, without those that start with `.` or `_`. Raises FolderProblem."""
    return {
        path.name: checked(path, boundary) for path in sorted(_listed(folder)) if not path.name.startswith((".", "_"))
    }


def files_below(start: Path, boundary: Path) -> list[Path]:
    """Return every file at and below `start`. Raises FolderProblem.

    Names that start with `.`, and `__pycache__`, are left out at every depth; other names with `_` may be code.
    """
    files: list[Path] = []
    _walk(start, boundary, (), files)
    return files


def states_below(folder: Path) -> dict[Path, Seen]:
    """Return the state of a folder and all in it, temporary files of copiers too. Raises FolderProblem.

    Names in `folder` itself that start with `_` are none of ours. Links are looked at, not walked.
    """
    states: dict[Path, Seen] = {}
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if not name.startswith("_")]
        ours = [name for name in files if here != folder or not name.startswith("_")]
        for path in (here, *(here / name for name in ours)):
            with contextlib.suppress(FileNotFoundError):  # gone again, or a link to nothing: `checked` names those
                states[path] = Seen.of(path)
        if len(states) > MAX_FILES:
            raise FolderProblem(f"more than {MAX_FILES:,} files")
    return states


def checked(path: Path, boundary: Path) -> Path:
    """Return `path` if it leads to something inside `boundary`. Raises FolderProblem naming the link that leaves."""
    try:
        path.name.encode()
        real = path.resolve(strict=True)
    except UnicodeEncodeError as error:
        raise FolderProblem(f"{path.name}: its name is not UTF-8") from error
    except (OSError, RuntimeError) as error:
        raise FolderProblem(f"{path.name}: cannot be followed ({_reason(error)})") from error
    if not real.is_relative_to(boundary):
        raise FolderProblem(f"{path.name}: is a link that leaves the folder of models")
    return path


def _walk(path: Path, boundary: Path, above: tuple[Path, ...], files: list[Path]) -> None:
    checked(path, boundary)
    if path.is_dir():
        real = path.resolve()
        if real in above:
            raise FolderProblem(f"{path.name}: is a link to a folder that holds it")
        for inner in sorted(_listed(path)):
            if not inner.name.startswith(".") and inner.name != "__pycache__":
                _walk(inner, boundary, (*above, real), files)
        return
    if not path.is_file():
        raise FolderProblem(f"{path.name}: is neither a file nor a folder")
    files.append(path)
    if len(files) > MAX_FILES:
        raise FolderProblem(f"more than {MAX_FILES:,} files")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise FolderProblem(f"{folder.name}: cannot be listed ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
