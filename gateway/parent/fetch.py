"""Brings a version's bytes into STATE/versions/<digest>/, each file verified by its sha256: whole or not at all."""

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.parent.control_client import BlobMissing, ControlClient, ControlUnreachable
from turnout.core.snapshot import FileEntry, VersionEntry, blob_path

_log = logging.getLogger(__name__)

_PARTIAL: Final = ".partial-"
_TRIES: Final = 3
_PAUSE_S: Final = 0.5


class FetchFailed(Exception):
    """A version's bytes cannot be had; the text is the reason that operators see."""


class VersionFiles:
    """The folder of fetched versions. Each is verified once in the life of this object, however it got there."""

    def __init__(self, folder: Path, control: ControlClient) -> None:
        self._folder = folder
        self._control = control
        self._verified: set[str] = set()
        for left in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)

    def directory(self, entry: VersionEntry) -> Path:
        """Return where a version's files lie once they are fetched."""
        return self._folder / entry.digest.replace(":", "-")

    async def fetch(self, entry: VersionEntry, blobs: Path | None) -> Path:
        """Return the folder with the version's verified files; `blobs` is a local folder to link them from.

        Raises FetchFailed.
        """
        directory = self.directory(entry)
        if entry.digest in self._verified:
            return directory
        try:
            if not await asyncio.to_thread(_is_whole, directory, entry.files):
                await self._bring(entry, directory, blobs)
        except OSError as error:
            raise FetchFailed(f"its bytes cannot be stored: {error.strerror or error}") from error
        self._verified.add(entry.digest)
        return directory

    def sweep(self, held: Collection[VersionEntry]) -> None:
        """Remove the files of versions that nothing holds."""
        kept = {self.directory(entry).name for entry in held}
        for folder in self._folder.iterdir():
            if folder.name not in kept and not folder.name.startswith(_PARTIAL):
                shutil.rmtree(folder, ignore_errors=True)
        self._verified &= {entry.digest for entry in held}

    async def _bring(self, entry: VersionEntry, directory: Path, blobs: Path | None) -> None:
        partial = directory.with_name(_PARTIAL + directory.name)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for file in entry.files:
                target = partial / _relative(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                linked = blobs is not None and await asyncio.to_thread(_link, blobs, target, file)
                if not linked:
                    await self._download(file, target)
            shutil.rmtree(directory, ignore_errors=True)
            partial.replace(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    async def _download(self, file: FileEntry, target: Path) -> None:
        for left in reversed(range(_TRIES)):
            try:
                found = await self._stream(file, target)
            except BlobMissing:
                raise FetchFailed(f"the bytes of {file.path} are missing in the repository") from None
            except ControlUnreachable as error:
                if not left:
                    raise FetchFailed(f"the bytes of {file.path} cannot be fetched: {error}") from error
                await asyncio.sleep(_PAUSE_S)
            else:
                if found != file.sha256:
                    raise FetchFailed(f"the bytes of {file.path} are not those that were registered")
                return

    async def _stream(self, file: FileEntry, target: Path) -> str:
        digest = hashlib.sha256()
        async with self._control.blob(file.sha256) as chunks:
            with target.open("wb") as out:
                async for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
        return digest.hexdigest()


def _relative(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise FetchFailed(f"file name {path!r} leads out of the version's folder")
    return relative


def _link(blobs: Path, target: Path, file: FileEntry) -> bool:
    """Hard-link, or copy, a local blob and verify it; False when it is not there or not right."""
    blob = blobs / blob_path(file.sha256)
    try:
        os.link(blob, target)
    except OSError:
        try:
            shutil.copyfile(blob, target)
        except FileNotFoundError:
            return False
    if _sha256(target) == file.sha256:
        return True
    _log.error("blob %s is damaged", blob)
    target.unlink()
    return False


def _is_whole(directory: Path, files: Collection[FileEntry]) -> bool:
    if not directory.is_dir():
        return False
    present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    if present != {file.path for file in files}:
        return False
    return all(_sha256(directory / file.path) == file.sha256 for file in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
