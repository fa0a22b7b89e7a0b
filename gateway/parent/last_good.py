"""Keeps the last snapshot that was served, so that a gateway starts and serves while control is down."""

import logging
import os
from pathlib import Path

import msgspec

from turnout.core.snapshot import Snapshot, decode, digest

_log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """`STATE/snapshot.json`: a snapshot's canonical bytes as they were received, and their digest."""

    digest: str
    snapshot: msgspec.Raw


def write(path: Path, data: bytes) -> None:
    """Replace the kept snapshot, whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(_Kept(digest(data), msgspec.Raw(data))))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path) -> tuple[Snapshot, bytes] | None:
    """Return the kept snapshot and its bytes; None, said in the log, when there is none or it is not whole."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        data = bytes(kept.snapshot)
        if digest(data) != kept.digest:
            raise ValueError("its digest is another")
        return decode(data), data
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.error("%s is not used: %s; control's next snapshot replaces it", path, error)
        return None
