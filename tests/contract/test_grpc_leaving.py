"""How the gRPC door leaves: no new connections, calls under way are answered, old connections move away in time."""

import asyncio
import socket

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.doors import grpc_sockets
from gateway.limits import Limits
from tests.contract.grpc_client import ended, raw_request, serving
from tests.fake_backend import FakeBackend, Gate, echo
from tests.waiting import eventually_async
from turnout.core.tensor import Datatype, Tensor

LONG_S = 60


async def test_a_call_under_way_is_answered():
    """Leaving waits for what it has taken; then it is done, long before the drain time is over."""
    gate = Gate()
    async with serving(FakeBackend({"m": gate.model()}), max_connection_age_s=0.3) as client:
        call = asyncio.ensure_future(ended(client.unary("ModelInfer")(raw_request("m"))))
        await gate.reached.wait()
        client.leave(LONG_S)
        await eventually_async(lambda: not listening(client.port))
        gate.open.set()
        assert (await call).code is grpc.StatusCode.OK
        await client.leaving


async def test_new_connections_are_refused_at_once():
    """The first thing that a leaving door does is to take no new connections; those it has are served on."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)}), max_connection_age_s=LONG_S / 2) as client:
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        client.leave(1)
        await eventually_async(lambda: not listening(client.port))
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", client.port), timeout=5)


async def test_connections_without_calls_move_away_by_age():
    """An idle connection is asked to go when it is old: the door stops without waiting for the drain's end."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)}), max_connection_age_s=0.3) as client:
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        client.leave(LONG_S)
        await client.leaving


async def test_without_age_only_calls_are_waited_for():
    """A door whose connections never move stops as soon as its calls are answered."""
    gate = Gate()
    async with serving(FakeBackend({"m": gate.model()})) as client:
        call = asyncio.ensure_future(ended(client.unary("ModelInfer")(raw_request("m"))))
        await gate.reached.wait()
        client.leave(LONG_S)
        await eventually_async(lambda: not listening(client.port))
        gate.open.set()
        assert (await call).code is grpc.StatusCode.OK
        await client.leaving


async def test_what_outlasts_the_drain_is_cut():
    """A call that never ends is ended with the drain time, and its prediction cancelled."""
    gate = Gate()
    backend = FakeBackend({"m": gate.model()})
    async with serving(backend, max_connection_age_s=0.1) as client:
        call = asyncio.ensure_future(ended(client.unary("ModelInfer")(raw_request("m"))))
        await gate.reached.wait()
        client.leave(0.5)
        await client.leaving
        assert (await call).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await eventually_async(lambda: backend.outcomes == ["cancelled"])


async def test_age_moves_connections_without_losing_calls():
    """Connections that are asked to move again and again lose no call."""
    request = raw_request("m", {"x": Tensor.of(np.array([1.0]))})
    async with serving(FakeBackend({"m": echo(Datatype.FP64)}), max_connection_age_s=0.1) as client:
        first = {await peer(client, request)}
        while len(first) < 4:
            codes = [(await client.infer(request)).code for _ in range(20)]
            assert set(codes) == {grpc.StatusCode.OK}
            first.add(await peer(client, request))


async def peer(client, request):
    """Return the ports that the client's connections come from."""
    assert (await client.infer(request)).code is grpc.StatusCode.OK
    return tuple(sorted(sock.getpeername()[1] for sock in grpc_sockets._sockets(client.port) if connected(sock)))


def connected(sock):
    """Tell whether a socket has a peer."""
    return grpc_sockets._is_connected(sock)


def listening(port):
    """Tell whether this process listens on a port."""
    return any(s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for s in grpc_sockets._sockets(port))


async def test_a_connection_that_says_nothing_is_closed():
    """A caller that connects and never speaks HTTP/2 holds its connection no longer than headers may take."""
    async with serving(FakeBackend({}), Limits(header_s=0.3)) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        async with asyncio.timeout(20):
            while await reader.read(1024):
                pass
        writer.close()
        await eventually_async(lambda: not grpc_sockets.count_connections(client.port))


def test_sockets_are_found_by_port():
    """Listeners and accepted connections of one port are told apart from all other sockets and files."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        assert (grpc_sockets.count_connections(port), listening(port)) == (0, True)
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert grpc_sockets.count_connections(port) == 1
            assert grpc_sockets.shut_listeners(port) == 1
            assert (grpc_sockets.count_connections(port), listening(port)) == (1, False)
            assert listening(other.getsockname()[1])
        assert grpc_sockets.shut_listeners(port) == 0


async def test_an_open_stream_ends_with_an_answer():
    """Once connections were asked to move, a stream ends right behind the answer after which nothing is under way."""
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    async with serving(backend, max_connection_age_s=0.2) as client:
        call = client.stream()
        assert await _answered(call, "0")
        client.leave(LONG_S)
        asked = 1
        while await _answered(call, str(asked)):
            asked += 1
        # grpc.aio says INTERNAL by itself where it was writing when the end came.
        assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
        assert backend.outcomes == ["ok"] * asked
        await client.leaving


async def _answered(call, identity):
    """Ask and wait for the answer; tell whether the stream was still open for it."""
    try:
        await call.write(raw_request("m", id=identity))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    answer = await call.read()
    if answer is grpc.aio.EOF:
        return False
    assert answer.infer_response.id == identity
    return True


async def test_a_door_that_nobody_relieves_takes_new_connections_for_a_while():
    """Callers who have not heard yet that the machine leaves are served as long as they can still be moved."""
    async with serving(FakeBackend({"m": echo(Datatype.FP64)}), max_connection_age_s=0.2) as client:
        assert (await client.infer(raw_request("m"))).code is grpc.StatusCode.OK
        client.leave(3, relieved=False)
        await eventually_async(client.door._health._draining.is_set)
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{client.port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as late:
            infer = late.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            call = infer(raw_request("m").SerializeToString(), timeout=10)
            assert await call.code() is grpc.StatusCode.OK
        await client.leaving
