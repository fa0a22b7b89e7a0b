"""The prediction lane answers whatever comes to the byte as the plain ASGI callable does."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.http_conversations import conversations, gateway, hold


@given(conversations(), st.booleans())
def test_the_lane_answers_as_asgi_does(pieces, at_once):
    """Same status, headers, bodies, order and ends of connections, and the same requests counted."""
    plain = asyncio.run(hold(pieces, gateway(at_once=False), lane=False))
    assert asyncio.run(hold(pieces, gateway(at_once=at_once), lane=True)) == plain
