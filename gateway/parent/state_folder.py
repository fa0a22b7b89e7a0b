"""The layout of STATE: who may use it, and where each part of the parent keeps its files.

One parent at a time holds `STATE/lock`. It knows folders only, never what the files in them mean.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Self

from gateway.parent.failure import CannotStart
from gateway.parent.wish import Wish
from turnout.core.clock import Deadline

# A Unix socket's path takes at most 107 bytes; names in the sockets folder take at most 24 of them.
_LONGEST_SOCKETS_FOLDER: Final = 107 - 25
_PRIVATE_PREFIX: Final = "turnout-"
# A parent that was killed leaves children behind for a moment; its guard holds the lock until they are gone.
_ORPHANS_GONE_S: Final = 6.0
_LOOK_S: Final = 0.05
_REMEDIES: Final = {
    errno.EACCES: "give it to user {user}, or choose another",
    errno.EPERM: "give it to user {user}, or choose another",
    errno.ENOSPC: "free some space, or choose another",
    errno.EDQUOT: "free some space, or choose another",
    errno.EROFS: "mount it writable, or choose another",
}


class _InUse(CannotStart):
    """Somebody else holds the lock; `lives`: another parent, and not just what one has left behind."""

    def __init__(self, root: Path, owner: str) -> None:
        super().__init__(
            f"state folder {root} (--state) is in use by process {owner}; stop that one, or choose another"
        )
        self.lives = _is_other_process(owner)


class StateFolder:
    """STATE, locked and writable. Raises CannotStart with one clear line when it cannot be used."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run = self.root / "run"
        self.metrics = self.run / "metrics"
        self.snapshots = self.run / "snapshots"
        self.versions = self.root / "versions"
        self.scratch = self.root / "scratch"
        self.last_good = self.root / "snapshot.json"
        self.adopt = self.root / "adopt"
        self.restart = Wish(self.root / "restart")
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock_fd = self._lock()
            self._check_writable()
            self._clear_run()
            self.restart.settle("")
            for folder in (self.metrics, self.snapshots, self.versions, self.scratch):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.sockets = self._sockets_folder()
        except OSError as error:
            raise CannotStart(
                f"state folder {self.root} (--state) cannot be used: {error.strerror or error}{self._remedy(error)}"
            ) from error

    @classmethod
    async def open(cls, root: Path) -> Self:
        """Lock STATE and lay it out, once the orphans of a parent that was killed are gone. Raises CannotStart."""
        patience = Deadline.after(_ORPHANS_GONE_S)
        while True:
            try:
                return await asyncio.to_thread(cls, root)
            except _InUse as error:
                if error.lives or patience.passed:
                    raise
                await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """Remove what only a running parent needs, and give the lock back."""
        self._clear_run()
        os.close(self.lock_fd)

    def _remedy(self, error: OSError) -> str:
        """Say which file it is about, where that is not the folder itself, and what helps."""
        name = str(error.filename or "")
        where = f" ({name})" if name not in ("", str(self.root)) else ""
        remedy = _REMEDIES.get(error.errno or 0, "choose another").format(user=os.geteuid())
        return f"{where}; {remedy}"

    def _lock(self) -> int:
        lock_fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip()
            os.close(lock_fd)
            raise _InUse(self.root, owner) from None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
        return lock_fd

    def _check_writable(self) -> None:
        probe = self.root / ".probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    def _clear_run(self) -> None:
        link = self.run / "sockets"
        if link.is_symlink():
            target = link.readlink()
            if target.name.startswith(_PRIVATE_PREFIX):
                shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(self.run, ignore_errors=True)

    def _sockets_folder(self) -> Path:
        """Return a folder of ours whose path leaves room for socket names; STATE/run/sockets leads to it."""
        folder = self.run / "sockets"
        if len(os.fsencode(folder)) <= _LONGEST_SOCKETS_FOLDER:
            folder.mkdir(mode=0o700)
            return folder
        private = Path(tempfile.mkdtemp(prefix=_PRIVATE_PREFIX))
        if len(os.fsencode(private)) > _LONGEST_SOCKETS_FOLDER:
            private.rmdir()
            raise CannotStart(f"paths of STATE ({self.root}) and TMPDIR are both too long for Unix sockets")
        folder.symlink_to(private, target_is_directory=True)
        return private


def _is_other_process(pid: str) -> bool:
    """Tell whether `pid` is a living process other than this one (in a container each start has the same id)."""
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()
