"""The HTTP server under its owner's hand: how it leaves without losing a caller."""

import asyncio
import signal

import httpx
import pytest

from gateway.http_server import HttpServer
from gateway.parent.sockets import listen
from tests.waiting import eventually_async

OK = b"HTTP/1.1 200 OK\r\n"


class App:
    """Answers each request once the test lets it."""

    def __init__(self):
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope, receive, send):
        """Answer."""
        self.asked += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def served():
    """Return a server, its app and its address."""
    app = App()
    server = HttpServer(app)
    sock = listen("127.0.0.1", 0, "")
    address = sock.getsockname()
    await server.open(sock)
    yield server, app, address
    await server.stop(0)


async def _ask(connection):
    reader, writer = connection
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return await reader.readuntil(b"ok")


async def test_signals_stay_with_the_owner(served):
    """An owner's handler is still there after the server has opened, and while it runs."""
    before = signal.getsignal(signal.SIGTERM)
    server, _, _ = served
    with server.capture_signals():
        assert signal.getsignal(signal.SIGTERM) is before


async def test_a_leaving_server_answers_and_says_close(served):
    """Open connections and new ones are answered, each for the last time."""
    server, _, address = served
    kept = await asyncio.open_connection(*address)
    assert b"connection: close" not in await _ask(kept)
    server.leave()
    assert b"connection: close" in await _ask(kept)
    assert await kept[0].read() == b""
    fresh = await asyncio.open_connection(*address)
    answer = await _ask(fresh)
    assert answer.startswith(OK)
    assert b"connection: close" in answer
    for _, writer in (kept, fresh):
        writer.close()


async def test_a_server_goes_on_saying_close(served):
    """The header stays, whatever uvicorn renews each second."""
    server, _, address = served
    server.leave()
    await server.on_tick(0)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address[0]}:{address[1]}/")
    assert answer.headers["connection"] == "close"


async def test_an_idle_connection_is_kept_until_the_end(served):
    """Leaving alone cuts nobody: the idle caller may still ask."""
    server, _, address = served
    idle = await asyncio.open_connection(*address)
    await eventually_async(lambda: server.connections == 1)
    server.leave()
    stopping = asyncio.create_task(server.stop(5.0))
    assert (await _ask(idle)).startswith(OK)
    await stopping
    assert await idle[0].read() == b""
    idle[1].close()


async def test_a_call_in_flight_is_answered_before_the_end(served):
    """A stop waits for what it has begun to answer."""
    server, app, address = served
    app.go.clear()
    connection = await asyncio.open_connection(*address)
    asking = asyncio.create_task(_ask(connection))
    await eventually_async(lambda: app.asked == 1)
    server.leave()
    stopping = asyncio.create_task(server.stop(5.0))
    app.go.set()
    assert (await asking).startswith(OK)
    await stopping
    connection[1].close()


async def test_callers_who_wait_to_be_accepted_are_taken(served):
    """Between the last accept and the closing of the port nobody who is connected is turned away."""
    server, _, address = served
    await asyncio.to_thread(lambda: None)
    connections = [await asyncio.open_connection(*address) for _ in range(20)]
    server.leave()
    stopping = asyncio.create_task(server.stop(5.0))
    answers = await asyncio.gather(*(_ask(connection) for connection in connections))
    assert all(answer.startswith(OK) for answer in answers)
    await stopping
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    for _, writer in connections:
        writer.close()
