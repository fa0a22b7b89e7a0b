"""The sockets that grpcio opens for a door and hands out to nobody: found by their port among this process's own.

grpcio can neither take a listening socket nor close one without stopping the server, and a stopping server cancels
calls that are just arriving (DESIGN 1). Linux only.
"""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_OPEN_FILES: Final = Path("/proc/self/fd")


def shut_listeners(port: int) -> int:
    """Take this process's listening sockets on `port` out of service, and return how many they were.

    Accepted connections go on; new ones go to other listeners of the port, if there are any.
    """
    count = 0
    for sock in _sockets(port):
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.shutdown(socket.SHUT_RDWR)
            count += 1
    return count


def count_connections(port: int) -> int:
    """Return how many connections to `port` this process has accepted and not closed."""
    return sum(map(_is_connected, _sockets(port)))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _sockets(port: int) -> Iterator[socket.socket]:
    """Yield this process's TCP sockets bound to `port`, each through a descriptor that is closed afterwards."""
    for entry in list(_OPEN_FILES.iterdir()):
        try:
            copy = os.dup(int(entry.name))
        except OSError:
            continue  # closed since it was listed
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            os.close(copy)
            continue
        with socket.socket(fileno=copy) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == port:
                yield sock
