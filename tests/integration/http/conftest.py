"""The door's connections are tested on the loop that the server uses, and on the plain one."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories():
    """Run each test once on either loop."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
