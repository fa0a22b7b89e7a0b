"""Requests as whole HTTP messages, and how one is sent and its answer read outside the timed runs.

Plain sockets: the load programs send the very same bytes.
"""

import socket
from collections.abc import Mapping
from typing import Final

import grpc
import msgspec

from bench.client import INFER

_ANSWER_S: Final = 30


class Answer(msgspec.Struct, frozen=True):
    """An answer: its status (HTTP's, or gRPC's code), its body, and the bytes that it took as the load counts them."""

    status: int
    body: bytes
    size: int
    headers: dict[str, str]


def post(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a whole HTTP/1.1 request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask_http(address: str, request: bytes) -> Answer:
    """Send one request on a connection of its own and return the answer. Raises OSError or ValueError."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), _ANSWER_S) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = stream.readline()
                if not line:
                    raise ValueError(f"the server closed the connection after {head!r}")
                head += line
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = stream.read(int(headers["content-length"]))
    return Answer(int(status.split(" ", 2)[1]), body, len(head) + len(body), headers)


def ask_grpc(address: str, message: bytes, headers: Mapping[str, str]) -> Answer:
    """Call ModelInfer with one message on a connection of its own and return the answer."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(INFER)
        try:
            body = call(message, timeout=_ANSWER_S, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            return Answer(error.code().value[0], str(error.details()).encode(), 0, {})
    return Answer(0, body, 5 + len(body), {})
