"""Brings a version's bytes into STATE/versions/<digest>/, each file verified by its sha256: whole or not at all."""

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Collection
from pathlib import Path, PurePosixPath
from typing import IO, Final

from gateway.parent.control_client import BlobMissing, ControlClient, ControlUnreachable
from turnout.core.snapshot import FileEntry, VersionEntry, blob_path

_log = logging.getLogger(__name__)

_PARTIAL: Final = ".partial-"
_TRIES: Final = 3
_PAUSE_S: Final = 0.5
_PIECE_BYTES: Final = 1024 * 1024


class FetchFailed(Exception):
    """A version's bytes cannot be had; the text is the reason that operators see."""


class VersionFiles:
    """The folder of fetched versions. Each is verified once in the life of this object, however it got there."""

    def __init__(self, folder: Path, control: ControlClient) -> None:
        self._folder = folder
        self._control = control
        self._verified: set[str] = set()

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
        """Remove the files of versions that nothing holds, half-fetched ones too.

        It blocks: called on a thread, and only while nothing is fetched.
        """
        kept = {self.directory(entry).name for entry in held}
        for folder in self._folder.iterdir():
            if folder.name not in kept:
                _remove(folder)
        self._verified &= {entry.digest for entry in held}

    async def _bring(self, entry: VersionEntry, directory: Path, blobs: Path | None) -> None:
        partial = directory.with_name(_PARTIAL + directory.name)
        await asyncio.to_thread(_remove, partial)
        try:
            for file in entry.files:
                target = partial / _relative(file.path)
                if not await asyncio.to_thread(_link, blobs, target, file):
                    await self._download(file, target)
            await asyncio.to_thread(_replace, directory, partial)
        finally:
            await asyncio.to_thread(_remove, partial)

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
            out = await asyncio.to_thread(target.open, "wb")
            try:
                async for piece in _pieces(chunks):
                    await asyncio.to_thread(_add, piece, digest, out)
            finally:
                await asyncio.to_thread(out.close)
        return digest.hexdigest()


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Gather chunks, so that a thread is asked to write now and then only."""
    piece: list[bytes] = []
    size = 0
    async for chunk in chunks:
        piece.append(chunk)
        size += len(chunk)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _add(piece: Collection[bytes], digest: "hashlib._Hash", out: IO[bytes]) -> None:
    for chunk in piece:
        digest.update(chunk)
        out.write(chunk)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _replace(directory: Path, partial: Path) -> None:
    _remove(directory)
    partial.replace(directory)


def _relative(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise FetchFailed(f"file name {path!r} leads out of the version's folder")
    return relative


def _link(blobs: Path | None, target: Path, file: FileEntry) -> bool:
    """Hard-link, or copy, a local blob and verify it; False when it is not there or not right. Makes the folders."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if blobs is None:
        return False
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
