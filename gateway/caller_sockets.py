"""What the kernel knows of a caller's connection, and what it is asked to find out. Linux."""

import socket
from typing import Any, Final

# States of TCP in which the other side sends no more: it closed its end, or the connection is gone.
_ENDED: Final = frozenset({7, 8, 9, 11})  # CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING
# A connection that is half open is found out after about a minute of silence.
_SILENT_S: Final = 30
_ASK_EVERY_S: Final = 10
_ASK_TIMES: Final = 3


def has_left(connection: Any) -> bool:
    """Tell whether the other side has closed its end, also while nothing is read from it."""
    if connection is None:
        return False
    try:
        state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return False  # no TCP, or closed here already
    return state in _ENDED


def keep_alive(listener: socket.socket) -> None:
    """Have the kernel ask silent callers whether they are still there; accepted connections inherit it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_EVERY_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASK_TIMES)
