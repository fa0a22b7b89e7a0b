"""Ports: bound once, held, and refused by name when they are taken."""

import socket

import pytest

from gateway.parent.failure import CannotStart
from gateway.parent.sockets import address, hold, listen, written


def _port_of(sock):
    return sock.getsockname()[1]


def test_a_taken_http_port_is_named_with_its_flag():
    """One line says which port, which flag and which host."""
    with listen("127.0.0.1", 0, "--http-port") as first:
        expected = rf"port {_port_of(first)} \(--http-port\) on 127.0.0.1 is taken"
        with pytest.raises(CannotStart, match=expected):
            listen("127.0.0.1", _port_of(first), "--http-port")


def test_a_held_port_serves_those_who_share_it_and_nobody_else():
    """Servers of gRPC bind the held port with SO_REUSEPORT and get the connections; another parent is turned away."""
    with hold("127.0.0.1", 0, "--grpc-port") as held:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(held.getsockname())
            server.listen()
            with socket.create_connection(held.getsockname(), timeout=5), server.accept()[0] as accepted:
                assert accepted.getsockname() == held.getsockname()
        with pytest.raises(CannotStart, match=r"--grpc-port"):
            hold("127.0.0.1", _port_of(held), "--grpc-port")


def test_a_port_that_a_sharing_server_listens_on_is_taken():
    """SO_REUSEPORT alone would let two servers split one port's connections."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(CannotStart, match="is taken"):
            hold("127.0.0.1", _port_of(server), "--grpc-port")


def test_a_host_that_is_not_this_machines_is_one_clear_line():
    """The line names the host."""
    with pytest.raises(CannotStart, match=r"host 192.0.2.1 \(--host\) is no address of this machine"):
        listen("192.0.2.1", 0, "--http-port")


def test_addresses_are_written_so_that_they_can_be_read_back():
    """IPv6 hosts stand in brackets."""
    assert written("::1", 80) == "[::1]:80"
    with listen("127.0.0.1", 0, "--http-port") as sock:
        assert address(sock) == f"127.0.0.1:{_port_of(sock)}"
