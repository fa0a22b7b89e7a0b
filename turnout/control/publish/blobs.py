"""Keeps bytes by their sha256 under STATE/blobs/sha256: whole or absent, and never changed."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from turnout.core.snapshot import blob_path

_PARTIAL: Final = ".partial-"
_READ_ONLY: Final = 0o444
_COPY_BYTES: Final = 1 << 20


class BlobChanged(Exception):
    """A file did not have the same bytes when it was read a second time."""


class BlobFolder:
    """A folder of blobs. Removes what an earlier process left half written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_PARTIAL}*"):
            left.unlink(missing_ok=True)

    def find(self, sha256: str) -> Path | None:
        """Return where the bytes lie, or None."""
        path = self.root / blob_path(sha256)
        return path if path.is_file() else None

    def put(self, source: Path) -> tuple[str, int]:
        """Take in a file's bytes; return their sha256 and size. Raises BlobChanged and OSError."""
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            known = self.find(sha256)
            if known is None or known.stat().st_size != size:
                file.seek(0)
                self._store(file, sha256)
        return sha256, size

    def _store(self, file: BinaryIO, sha256: str) -> None:
        target = self.root / blob_path(sha256)
        target.parent.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_PARTIAL, dir=self.root)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "w+b") as out:
                shutil.copyfileobj(file, out, _COPY_BYTES)
                out.flush()
                out.seek(0)
                if hashlib.file_digest(out, "sha256").hexdigest() != sha256:
                    raise BlobChanged
                os.fchmod(out.fileno(), _READ_ONLY)
                os.fsync(out.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
