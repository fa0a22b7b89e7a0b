"""How many files a gateway process may have open, and how many of them its doors may use for connections."""

import resource
from typing import Final

import msgspec

from gateway.limits import Limits

_ENOUGH: Final = 65_536
_SHARE: Final = 3  # each door gets a third; the rest is for models, workers, logs and metrics


def allow_many_files() -> int:
    """Raise this process's own limit of open files as far as it may, up to what is enough; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def within_files(limits: Limits, files: int) -> Limits:
    """Return the limits with no more connections than so many open files leave room for."""
    return msgspec.structs.replace(limits, connections=max(1, min(limits.connections, files // _SHARE)))
