"""A pytest plugin for uvicorn's own test suite: its httptools protocol is the HTTP door's here.

It runs inside uvicorn's checkout, where `tests` are uvicorn's: it must import none of ours.
"""

from typing import Any

from uvicorn.protocols.http import httptools_impl

from gateway.doors.http import HttpDoor
from gateway.doors.prediction_lane import protocol_for
from gateway.limits import Limits
from gateway.pressure import Pressure


class NoBackend:
    """What the protocol itself asks of a gateway."""

    generation = 1

    def __init__(self) -> None:
        self.pressure = Pressure(Limits())

    def refused(self, *_: Any) -> None:
        """Take note of nothing."""


backend: Any = NoBackend()
httptools_impl.HttpToolsProtocol = protocol_for(  # type: ignore[misc]  # uvicorn's tests look it up by this name
    HttpDoor(backend, Limits(), repository_control=False), backend, Limits()
)
