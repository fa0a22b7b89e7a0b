"""One call through the HTTP door: what the router learns, deadlines, and callers that leave or are slow."""

import asyncio

import pytest

from gateway.doors.http import HttpDoor
from gateway.limits import Limits
from tests.fake_backend import FakeBackend, Gate, echo
from tests.unit.gateway.doors.http_client import client, error_of, sent
from turnout.core.tensor import Datatype

ROW = {"inputs": [sent("x", "FP64", [1], [1.5])]}


@pytest.fixture
def backend():
    """A gateway with one well-behaved model."""
    return FakeBackend({"echo": echo(Datatype.FP64)})


async def test_a_fallback_marks_its_answer(backend):
    """The header names what rescued the request."""
    backend.models["echo"].fallback = "previous"
    answer = await client(backend).post("/v2/models/echo/infer", json=ROW)
    assert answer.headers["turnout-fallback"] == "previous"
    assert answer.headers["turnout-version"] == "echo@1"


async def test_the_router_gets_what_it_routes_by(backend):
    """Headers, parameters, trace and identity travel with the request."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = {**ROW, "id": "42", "parameters": {"user": "u1", "flag": True, "n": 3, "f": 2.5}}
    headers = {"X-User-Id": "u7", "traceparent": trace, "turnout-request-id": "r"}
    answer = await client(backend).post("/v2/models/echo/infer", json=body, headers=headers)
    assert answer.json()["id"] == "42"
    request = backend.requests[0]
    assert request.headers.get("x-user-id") == "u7"
    assert request.headers.get("x-other") is None
    assert request.parameters == {"user": "u1", "flag": True, "n": 3, "f": 2.5}
    assert request.parameters["flag"] is True
    assert (request.traceparent, request.request_id, request.protocol) == (trace, "r", "http")


async def test_a_broken_traceparent_is_as_good_as_none(backend):
    """What is no W3C trace context goes no further."""
    for value in ("00-0-0-01", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "0" * 32 + "-" + "1" * 16 + "-01"):
        await client(backend).post("/v2/models/echo/infer", json=ROW, headers={"traceparent": value})
    assert [request.traceparent for request in backend.requests] == [None, None, None]


@pytest.mark.parametrize(
    ("headers", "parameters", "at_most_s"),
    [
        ({"turnout-deadline-ms": "250"}, {}, 0.25),
        ({}, {"turnout-deadline-ms": 100}, 0.1),
        ({}, {"timeout": 50_000}, 0.05),
        ({"turnout-deadline-ms": "5000"}, {"timeout": 2_000_000}, 2.0),
    ],
)
async def test_the_earliest_deadline_that_the_caller_named_counts(backend, headers, parameters, at_most_s):
    """Header, parameter and Triton's microseconds are read."""
    await client(backend).post("/v2/models/echo/infer", json={**ROW, "parameters": parameters}, headers=headers)
    request = backend.requests[0]
    assert request.deadline is not None
    assert request.deadline.at_s - request.received_s <= at_most_s + 1e-6


@pytest.mark.parametrize("value", [1, "a", 2.5])
async def test_a_sequence_is_refused_and_none_is_not(backend, value):
    """No model keeps state from one request to the next; 0 and the empty text mean no sequence."""
    calls = client(backend)
    for none in (0, ""):
        answer = await calls.post("/v2/models/echo/infer", json={**ROW, "parameters": {"sequence_id": none}})
        assert answer.status_code == 200
    answer = await calls.post("/v2/models/echo/infer", json={**ROW, "parameters": {"sequence_id": value}})
    assert answer.status_code == 400
    assert error_of(answer).startswith("parameter sequence_id: ")


async def test_no_named_deadline_leaves_it_to_the_route(backend):
    """Nothing and Triton's 0 mean none."""
    await client(backend).post("/v2/models/echo/infer", json=ROW)
    await client(backend).post("/v2/models/echo/infer", json={**ROW, "parameters": {"timeout": 0}})
    assert [request.deadline for request in backend.requests] == [None, None]


@pytest.mark.parametrize("value", ["-1", "0", "soon", "1.5", ""])
async def test_a_broken_deadline_is_400(backend, value):
    """A deadline that cannot be read is no deadline of ours to invent."""
    headers = {"turnout-deadline-ms": value}
    answer = await client(backend).post("/v2/models/echo/infer", json=ROW, headers=headers)
    assert answer.status_code == 400
    assert error_of(answer).startswith("header turnout-deadline-ms: ")
    assert [str(error) for _, _, error in backend.refusals] == [error_of(answer)]


async def test_refusals_of_the_door_are_recorded_once_with_their_route(backend):
    """A request that never reaches the router is counted all the same."""
    await client(backend).post("/v2/models/echo/infer", content=b"{")
    assert [(route, protocol, error.code) for route, protocol, error in backend.refusals] == [
        ("echo", "http", "invalid_input")
    ]
    assert backend.requests == []


async def test_one_app_serves_calls_at_once(backend):
    """Calls wait for their own models only."""
    gate = Gate()
    backend.models["slow"] = gate.model()
    calls = client(backend)
    slow = asyncio.create_task(calls.post("/v2/models/slow/infer", json=ROW))
    await gate.reached.wait()
    assert (await calls.post("/v2/models/echo/infer", json=ROW)).status_code == 200
    gate.open.set()
    assert (await slow).status_code == 200


async def scripted(app, messages, *, headers=(), path="/v2/models/slow/infer"):
    """Run one request whose messages the test dictates; after them nothing comes. Return what was sent."""
    answers = []

    async def receive():
        message = messages.pop(0) if messages else None
        if message is None:
            await asyncio.Event().wait()
        if isinstance(message, asyncio.Event):
            await message.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    await app(scope, receive, send)
    return answers


BODY = {"type": "http.request", "body": b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}'}


async def test_a_caller_that_leaves_frees_its_slot():
    """http.disconnect cancels the call, and nothing is answered."""
    gate = Gate()
    backend = FakeBackend({"slow": gate.model()})
    app = HttpDoor(backend, Limits(), repository_control=False)
    leaves = asyncio.Event()
    call = asyncio.create_task(scripted(app, [BODY, leaves]))
    await gate.reached.wait()
    leaves.set()
    assert await call == []
    assert (backend.in_flight, backend.outcomes, backend.refusals) == (0, ["cancelled"], [])


async def test_a_caller_that_leaves_in_the_middle_of_its_body_is_recorded():
    """What never became a request counts as cancelled."""
    backend = FakeBackend({"slow": Gate().model()})
    app = HttpDoor(backend, Limits(), repository_control=False)
    half = {"type": "http.request", "body": b"{", "more_body": True}
    for messages in ([half, {"type": "http.disconnect"}], [{"type": "http.disconnect"}]):
        assert await scripted(app, messages) == []
    assert [error.code for _, _, error in backend.refusals] == ["cancelled", "cancelled"]


async def test_a_slow_body_is_ended_by_the_limit():
    """A body that does not arrive in time gets an answer and holds nothing."""
    backend = FakeBackend({"slow": Gate().model()})
    app = HttpDoor(backend, Limits(body_s=0.05), repository_control=False)
    for messages in ([], [{"type": "http.request", "body": b"{", "more_body": True}]):
        start, end = await scripted(app, messages)
        assert start["status"] == 504
        assert end["body"] == b'{"error":"the request body did not arrive in time"}'
    assert [error.code for _, _, error in backend.refusals] == ["deadline", "deadline"]


async def test_a_slow_body_of_a_repository_call_is_ended_too():
    """It gets the same answer as a prediction, in our form, not the server's own 500."""
    app = HttpDoor(FakeBackend({}), Limits(body_s=0.05), repository_control=True)
    for path in ("/v2/repository/index", "/v2/repository/models/m/load"):
        start, end = await scripted(app, [], path=path)
        assert start["status"] == 504
        assert end["body"] == b'{"error":"the request body did not arrive in time"}'


async def test_a_cancellation_from_outside_goes_on():
    """Only a caller's leaving is swallowed: whoever stops the server stops its calls."""
    gate = Gate()
    app = HttpDoor(FakeBackend({"slow": gate.model()}), Limits(), repository_control=False)
    call = asyncio.create_task(scripted(app, [BODY]))
    await gate.reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_the_server_may_tell_its_start_and_stop():
    """The lifespan protocol is followed where it is spoken."""
    app = HttpDoor(FakeBackend({}), Limits(), repository_control=False)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    answers = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        answers.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_routes_constant_answers_without_a_version(backend):
    """When a declared value rescues a request, no version is named, in headers and body alike."""
    backend.models["echo"].fallback = "value"
    answer = await client(backend).post("/v2/models/echo/infer", json={**ROW, "parameters": {"turnout": True}})
    assert "model_version" not in answer.json()
    assert "turnout-version" not in answer.headers
    assert answer.headers["turnout-fallback"] == answer.json()["parameters"]["turnout-fallback"] == "value"
