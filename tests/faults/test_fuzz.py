"""A few thousand bent inputs at each door of a real server; `bench/campaign/fuzz.py` throws 200,000."""

import asyncio
import os
from random import Random

import pytest

from bench.fuzz import grpc_inputs, http_inputs, throw

INPUTS = 800


@pytest.fixture(scope="module")
def server(started):
    """One gateway with a model of numbers and one of texts."""
    server, folder = started
    throw.write_models(folder)
    return server(folder).ready()


@pytest.fixture
def random():
    """A new seed each time; a failure names it, and TURNOUT_FUZZ_SEED brings it back."""
    seed = int(os.environ.get("TURNOUT_FUZZ_SEED", Random().getrandbits(32)))
    print(f"TURNOUT_FUZZ_SEED={seed}")
    return Random(seed)


@pytest.mark.parametrize("throw_at", [throw.throw_http, throw.throw_messages, throw.throw_http2])
def test_bent_inputs_are_the_callers_fault_and_harm_nobody(server, random, throw_at):
    """No 5xx, no connection without an end, no traceback, the same processes, and a right answer after."""
    before = server.gateways()
    thrown = asyncio.run(throw_at(server, random, INPUTS))
    assert (thrown.inputs, thrown.wrong) == (INPUTS, [])
    assert asyncio.run(throw.is_healthy(server))
    assert throw.tracebacks(server) == []
    assert server.gateways() == before


def test_what_is_bent_is_right_before(server):
    """Else nothing but the first line of the reader would be tested."""

    async def answers():
        host, _, port = server.http.rpartition(":")
        return [await throw.converse(host, int(port), data) for data in http_inputs.RIGHT]

    assert [answer.split(b" ", 2)[1] for answer in asyncio.run(answers())] == [b"200"] * len(http_inputs.RIGHT)
    host, _, port = server.grpc.rpartition(":")
    answer = asyncio.run(throw.converse(host, int(port), b"".join(grpc_inputs.CONVERSATION)))
    assert b"grpc-status\x010" in answer
