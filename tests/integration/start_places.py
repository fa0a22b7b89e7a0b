"""Places and users that a start finds hard: small disks, read-only ones, folders and files of others, old Javas.

Works as root and as any user who may make namespaces; nothing is left behind, since mounts end with the process.
"""

import os
from pathlib import Path
from typing import Final

_IS_ROOT: Final = os.geteuid() == 0
# Root without its right to read and write everything; anybody else has none.
UNPRIVILEGED: Final = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if _IS_ROOT else ()
# As in the image. It may read what root may: this Python, most of all, which often lies in root's home.
OTHER_USER: Final = (
    (
        *("setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups"),
        *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    )
    if _IS_ROOT
    else ()
)


def on_tmpfs(folder: Path, options: str = "rw", *, fill: bool = False, torn: str = "") -> tuple[str, ...]:
    """Return what to put before a command so that `folder` is a disk of 1 MiB of its own while the command runs.

    `fill`: it has no room left. `torn`: it holds a file of this name that was cut off.
    """
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size=1m,mode=777,{options} tmpfs "$0"'
    if fill:
        script += '; dd if=/dev/zero of="$0/filler" bs=4096 2>/dev/null'
    if torn:
        script += f'; printf \'{{"digest": "12\' > "$0/{torn}"'
    namespaces = ("--mount",) if _IS_ROOT else ("--mount", "--user", "--map-current-user", "--keep-caps")
    return ("unshare", *namespaces, "sh", "-c", f'{script}; exec "$@"', str(folder))


def some_java(home: Path, version: int) -> Path:
    """Write a JDK's programs that say their version and do nothing else; return its home."""
    (home / "bin").mkdir(parents=True)
    for name in ("java", "javac"):
        program = home / "bin" / name
        program.write_text(
            f"#!/bin/sh\necho '    java.specification.version = {version}'\necho '    java.home = {home}'\n"
        )
        program.chmod(0o755)
    return home
