"""What callers hear while the machine starts: to try again, never that a route is unknown."""

import socket

import grpc
import httpx
import pytest

from bench.versions import write_routes
from tests.waiting import eventually

INPUT = {"name": "x", "datatype": "FP64", "shape": [1], "data": [0.0]}


def free_port():
    """Return a port that was free a moment ago: callers must know it before the ready line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def grpc_code(server, route):
    """Return the code with which the gRPC door refuses a prediction."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict_grpc(route)
    return caught.value.code()


def asked(port):
    """Return the answer of the door to a prediction; None while nobody listens."""
    try:
        return httpx.post(f"http://127.0.0.1:{port}/v2/models/one/infer", json={"inputs": [INPUT]}, timeout=10)
    except httpx.TransportError:
        return None


def test_a_known_route_is_never_unknown_during_a_start_or_restart(serve, folder):
    """From the first answer of the door to the first prediction, whatever is not answered is 503."""
    port = free_port()
    for _ in range(2):
        server = serve(folder, "--http-port", str(port))
        statuses = set()

        def is_served(statuses=statuses):
            answer = asked(port)
            if answer is not None:
                statuses.add(answer.status_code)
            return answer is not None and answer.status_code == 200

        eventually(is_served, 60)
        assert statuses <= {200, 503}
        assert server.ready().end() == 0


def test_while_versions_are_only_held_both_doors_ask_to_come_again(serve, folder):
    """A first start whose routes file is refused routes nothing: 503 with retry-after, UNAVAILABLE; then it answers."""
    port, other_port = free_port(), free_port()
    write_routes(folder, {"one": {"champion": "one@9"}})
    server = serve(folder, "--http-port", str(port), "--grpc-port", str(other_port))
    server.logged("turnout is up, not ready")
    server.grpc = f"127.0.0.1:{other_port}"
    assert grpc_code(server, "one") is grpc.StatusCode.UNAVAILABLE
    answer = eventually(lambda: asked(port))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    write_routes(folder, {"one": {"champion": "one@1"}})
    server.ready()
    assert asked(port).status_code == 200
    assert grpc_code(server, "nobody") is grpc.StatusCode.NOT_FOUND
