"""The bench's short form: both load programs against a real gateway, whose counts agree to the request."""

import numpy as np
import pytest

from bench.client import infer_message
from bench.speed.configs import ON, client
from bench.speed.requests import Requests, json_rows, read_grpc
from bench.speed.servers import Server
from bench.speed.table import GRPC, HTTP, Entry, measure

ROWS = [np.array([float(at)]) for at in range(4)]
EXPECTED = [{"value": np.array([1.0])}] * len(ROWS)


def messages():
    """Return the rows as ModelInfer messages."""
    bodies = [infer_message("one", {"x": ("FP64", [1], row.tobytes())}) for row in ROWS]
    return Requests(bodies, {}, EXPECTED, read_grpc)


@pytest.mark.parametrize("door", [HTTP, GRPC])
def test_the_gateway_counts_what_the_load_counts(shared, door):
    """A second of load: every answer is right, and the predict counter grows by exactly the requests counted."""
    asked = json_rows(ROWS, EXPECTED) if door == HTTP else messages()
    server = Server(ON, shared.process.pid, shared.http, shared.grpc, shared.metrics, client(ON))
    entry = Entry(server, door, asked, path="/v2/models/one/infer", route="one")
    (cell,) = measure("short", {ON: entry}, {4: 1}, seconds=1)
    (run,) = cell.runs[ON]
    assert [why for why in run.wrong if not why.startswith("void")] == []
    assert run.requests <= run.grown["ok"] <= run.requests + 4
