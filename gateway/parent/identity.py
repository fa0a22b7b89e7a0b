"""The name under which this gateway machine reports to control; it stays with STATE."""

import os
import re
import secrets
import socket
from pathlib import Path

from turnout.core.ids import is_name


def gateway_name(path: Path) -> str:
    """Return the name kept at `path`, made from the host's on first use."""
    try:
        kept = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        kept = ""
    if is_name(kept):
        return kept
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()).strip("-")[:64] or "gateway"
    name = f"{host}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(name, encoding="ascii")
    temporary.replace(path)
    return name
