"""The process whose instructions are counted: it runs as many requests of a kind as it is told, and nothing else.

`python -m bench.counted FOLDER [--sklearn]` over models that `instructions.py` has written. It says `ready` once each
kind is warm; then it reads lines `KIND COUNT`, sends that many requests through the real doors in its own process, and
says `done` and the answers that were none. It must not check more than that: the check would be counted, too.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import select
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bench import workload
from bench.in_process import DataPlane, Wire, WireCall, connect, data_plane
from gateway.doors.grpc_core import CoreCall
from gateway.main import GC_THRESHOLD
from gateway.observe.access_log import ALL
from turnout.core.manifest import Runtime
from turnout.core.snapshot import BUCKETS, Route, Shadow, Sticky, Variant, VersionEntry

WARM: Final = 200  # more than a block of calls, after which a quick model runs inline
BARE: Final = "bare http json 1 row"
ALL_FEATURES: Final = "http json 1 row, all features on"
# The data set's rows: making them anew would import scikit-learn, which takes half a minute where it is counted.
ROWS_FILE: Final = "rows.npy"
SKLEARN: Final = "http json 1 row, scikit-learn"
_ROWS: Final = 64
_LOOK_S: Final = 0.001
_TURNS: Final = 50
_OK: Final = b"HTTP/1.1 200 "
_FEATURES: Final = (
    "turnout-deadline-ms: 2000\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
)

Rows: TypeAlias = npt.NDArray[np.float32]
# Sends so many requests; returns how many answers were none.
Sender: TypeAlias = Callable[[int], Awaitable[int]]


def entry(model: str, number: int, runtime: Runtime, artifact: str) -> VersionEntry:
    """Return a version as control would publish it."""
    return VersionEntry(model, number, f"sha256:{model}{number}", runtime, artifact, (), trusted=True)


def plain(model: str) -> Route:
    """Return a route to the first version of a model."""
    first = f"{model}@1"
    return Route(model, first, (Variant(first, BUCKETS, ((0, BUCKETS),)),), explicit=True)


def split() -> Route:
    """Return the route with all features: a split by sticky key and a shadow of every tenth request."""
    variants = (Variant("cancer@1", 9500, ((0, 9500),)), Variant("cancer@2", 500, ((9500, BUCKETS),)))
    return Route(
        "features",
        "cancer@1",
        variants,
        explicit=True,
        shadows=(Shadow("cancer@3", 1000),),
        sticky=Sticky("features", header="x-user-id"),
    )


def post(path: str, body: bytes, headers: str = "content-type: application/json\r\n") -> bytes:
    """Return a request as wrk sends it."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )


def over_http(connection: Any, wire: Wire, requests: list[bytes]) -> Sender:
    """Return a sender of these requests, in turn, one after another on one connection."""
    following: Iterator[bytes] = cycle(requests)

    async def send(count: int) -> int:
        wire.written.clear()
        answers = 0
        for _ in range(count):
            connection.data_received(next(following))
            while not wire.written:
                await asyncio.sleep(0)
            answers += wire.written[0].startswith(_OK)
            wire.written.clear()
        return count - answers

    return send


def over_asgi(connection: Any, wire: Wire, requests: list[bytes]) -> Sender:
    """Return the same for an application whose answer comes in two pieces: heading and body."""
    following: Iterator[bytes] = cycle(requests)

    async def send(count: int) -> int:
        wire.written.clear()
        answers = 0
        for _ in range(count):
            connection.data_received(next(following))
            while len(wire.written) < 2:
                await asyncio.sleep(0)
            answers += wire.written[0].startswith(_OK)
            wire.written.clear()
        return count - answers

    return send


def with_turns(send: Sender) -> Sender:
    """Give the loop its turns after each request: that is when shadows run."""

    async def send_slowly(count: int) -> int:
        lost = 0
        for _ in range(count):
            lost += await send(1)
            await asyncio.sleep(0)
        for _ in range(_TURNS):
            await asyncio.sleep(_LOOK_S)
        return lost

    return send_slowly


def over_grpc(plane: DataPlane, messages: list[bytes]) -> Sender:
    """Return a sender of these messages."""
    metadata = (("user-agent", "h2load"), ("content-type", "application/grpc"))
    following = cycle(messages)

    async def send(count: int) -> int:
        answers = 0
        for _ in range(count):
            call = WireCall(next(following), metadata)
            plane.grpc.infer(cast("CoreCall", call))  # it has all that the door asks of one
            while not call.over:
                await asyncio.sleep(0)
            answers += call.code == 0
        return count - answers

    return send


def senders(plane: DataPlane, data: Rows) -> dict[str, Sender]:
    """Return the kinds of request to a gateway with no feature on, made of the rows of `data`."""
    rows = data[:_ROWS]
    many = [data[at : at + 32] for at in range(_ROWS)]
    path = "/v2/models/cancer/infer"
    return {
        "http json 1 row": over_http(*plane.connect(), [post(path, workload.json_body(row[None])) for row in rows]),
        "http json 32 rows": over_http(*plane.connect(), [post(path, workload.json_body(batch)) for batch in many]),
        "http binary 4 KiB": over_http(*plane.connect(), [binary_post(at) for at in range(_ROWS)]),
        "http json 1 row of 8 strings": over_http(
            *plane.connect(), [post("/v2/models/strings/infer", workload.strings_body(at)) for at in range(_ROWS)]
        ),
        "grpc raw 1 row": over_grpc(plane, [workload.grpc_message(row[None]) for row in rows]),
    }


def with_features(plane: DataPlane, data: Rows) -> Sender:
    """Return one row to the route with all features, with the headers that ask for them."""
    requests = [
        post(
            "/v2/models/features/infer",
            workload.json_body(row[None]),
            f"content-type: application/json\r\nx-user-id: {user}\r\n{_FEATURES}",
        )
        for user, row in enumerate(data[:_ROWS])
    ]
    return with_turns(over_http(*plane.connect(), requests))


def to_scikit(plane: DataPlane, data: Rows) -> Sender:
    """Return one row to the scikit-learn model."""
    bodies = [workload.json_body(row[None].astype(np.float64)) for row in data[:_ROWS]]
    return over_http(*plane.connect(), [post("/v2/models/scikit/infer", body) for body in bodies])


def binary_post(at: int) -> bytes:
    """Return a request with a raw tensor of 4 KiB that differs from number to number."""
    head, body = workload.binary_body(1024, at)
    return post("/v2/models/echo/infer", body, f"inference-header-content-length: {head}\r\n")


def bare(model: Path, data: Rows) -> Sender:
    """Return the bare ASGI handler on uvicorn's own protocol."""
    os.environ["BARE_MODEL"] = str(model)
    from bench.bare.asgi import app  # noqa: PLC0415  it loads the model as it is imported

    bodies = [workload.json_body(row[None]) for row in data[:_ROWS]]
    return over_asgi(*connect(app, HttpToolsProtocol), [post("/", body) for body in bodies])


@contextlib.asynccontextmanager
async def kinds_of(models: Path, *, sklearn: bool) -> AsyncIterator[dict[str, Sender]]:
    """Load the models, and return every kind of request."""
    data = np.load(models / ROWS_FILE)
    cancer = [entry("cancer", number, Runtime.ONNX, "model.onnx") for number in (1, 2, 3)]
    others = [entry("echo", 1, Runtime.ONNX, "model.onnx"), entry("strings", 1, Runtime.ONNX, "model.onnx")]
    if sklearn:
        others.append(entry("scikit", 1, Runtime.SKLEARN, "model.skops"))
    featured, simple = tuple(cancer), (cancer[0], *others)
    directories = {str(version.ref): models / version.model for version in (*cancer, *others)}
    routes = tuple(plain(version.model) for version in simple)
    with tempfile.TemporaryDirectory() as scratch:
        async with (
            data_plane(Path(scratch, "off"), directories, simple, routes) as off,
            data_plane(Path(scratch, "on"), directories, featured, (split(),), log_sample=ALL) as on,
        ):
            kinds = {BARE: bare(models / "cancer" / "model.onnx", data), **senders(off, data)}
            kinds[ALL_FEATURES] = with_features(on, data)
            if sklearn:
                kinds[SKLEARN] = to_scikit(off, data)
            yield kinds


async def serve(models: Path, *, sklearn: bool) -> None:
    """Warm every kind, then do what standard input says until it ends."""
    async with kinds_of(models, sklearn=sklearn) as kinds:
        for send in kinds.values():
            await send(WARM)
        gc.collect()
        gc.freeze()
        say("ready " + "|".join(kinds))
        while (line := next_line()) is not None:
            kind, _, count = line.rpartition(" ")
            lost = await kinds[kind](int(count))
            gc.collect()  # what requests leave to the collector is a part of their cost
            say(f"done {lost}")


def say(text: str) -> None:
    """Tell the counting process."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def next_line() -> str | None:
    """Return the next line, None at the end. Looks now and then: in a long wait valgrind hears no command."""
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        pass
    return sys.stdin.readline().strip() or None


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--sklearn", action="store_true")
    arguments = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    uvloop.run(serve(arguments.models, sklearn=arguments.sklearn))


if __name__ == "__main__":
    main()
