"""Binds the machine's ports. HTTP ports are bound once and handed on; the gRPC port is only kept for its servers.

grpcio takes no socket: gateway processes bind the gRPC port themselves with SO_REUSEPORT (DESIGN 1).
"""

import errno
import os
import socket
from typing import Final

from gateway.parent.failure import CannotStart

BACKLOG: Final = 2048


def address(sock: socket.socket) -> str:
    """Return where a socket is bound, as `HOST:PORT`."""
    host, port = sock.getsockname()[:2]
    return written(host, port)


def written(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Bind and listen, alone on the port. Raises CannotStart naming the port and `flag` when it cannot."""
    sock = _bind(host, port, flag, socket.SO_REUSEADDR, backlog=BACKLOG)
    sock.setblocking(False)
    return sock


def hold(host: str, port: int, flag: str) -> socket.socket:
    """Keep a port for servers that bind it with SO_REUSEPORT: bound, never listening.

    The exclusive probe finds a server that shares the port. Without SO_REUSEADDR on the kept socket the probe of
    another parent fails in its turn. Raises CannotStart as `listen` does.
    """
    if port:
        _bind(host, port, flag, socket.SO_REUSEADDR, backlog=None).close()
    return _bind(host, port, flag, socket.SO_REUSEPORT, backlog=None)


def _bind(host: str, port: int, flag: str, option: int, *, backlog: int | None) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CannotStart(
            f"host {host} (--host) cannot be resolved: {error.strerror or error}; name an address of this machine"
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(where)
        if backlog is not None:
            sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise CannotStart(_reason(error, host, port, flag)) from error
    return sock


def _reason(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} ({flag}) on {host} is taken by another process; stop that one, or choose another"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} ({flag}) on {host} may not be used by user {os.geteuid()}; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} (--host) is no address of this machine; name one that is"
    return f"port {port} ({flag}) on host {host} (--host) cannot be bound: {error.strerror or error}"
