"""Sends flights through the gateway in time order, half by HTTP and half by gRPC, and tallies what comes back."""

import asyncio
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from bench.client import Answer, GrpcClient, HttpClient
from models.flight_delay.features import MODEL
from models.flight_delay.tally import Tally
from models.flight_delay.wire import Answers, Flights, read_grpc, read_http

IN_FLIGHT: Final = 8
WITHIN_S: Final = 30.0
# One request in eight brings a plane-load of rows; the others are single flights.
BATCH_ROWS: Final = 32
BATCH_SHARE: Final = 0.125
SEED: Final = 2013
HTTP_OK: Final = 200


class Call(NamedTuple):
    """A request to come: flights `start` to `stop`, in one of the three forms."""

    start: int
    stop: int
    form: str

    @property
    def protocol(self) -> str:
        """The protocol's name, as in the metrics."""
        return "grpc" if self.form == "grpc" else "http"


def plan(flights: int, start: int = 0) -> Iterator[Call]:
    """Yield requests over all flights in order: HTTP (JSON and binary in turn) and gRPC alternate; sizes are seeded."""
    random = np.random.default_rng(SEED)
    number = 0
    while start < flights:
        rows = BATCH_ROWS if random.random() < BATCH_SHARE else 1
        stop = min(start + rows, flights)
        yield Call(start, stop, ("json", "grpc", "binary", "grpc")[number % 4])
        start, number = stop, number + 1


class Driver:
    """The client: a fixed number of requests in flight, none ever sent twice to hide a failure."""

    def __init__(self, http: str, grpc: str, flights: Flights, tally: Tally, champion: int) -> None:
        self._flights = flights
        self._tally = tally
        self._champion = champion
        self._http = HttpClient(http, IN_FLIGHT)
        self._grpc = GrpcClient(grpc, channels=2)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.__aexit__(None, None, None)
        await self._grpc.__aexit__(None, None, None)

    async def drive(self, calls: Iterator[Call]) -> None:
        """Send all calls by the split, in order, as fast as answers come."""
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(self._work(calls))

    async def pinned(self, calls: Iterator[Call], version: int, late: "np.typing.NDArray[np.float64]") -> None:
        """Send calls past the split to one version, in turn; probabilities go to `late`, one element a flight."""
        for call in calls:
            answers = await self._ask_pinned(call, version)
            if answers:
                late[call.start : call.stop] = answers.late

    async def _work(self, calls: Iterator[Call]) -> None:
        for call in calls:
            began = time.perf_counter()
            answer = await self._send(call)
            latency_ms = (time.perf_counter() - began) * 1000
            answers = self._read(call, answer)
            if answer is None or answers is None:
                continue
            version = int(answer.headers["turnout-version"].rpartition("@")[2])
            self._tally.answered(call.start, version, call.protocol, answers, latency_ms)
            if version != self._champion:
                again = await self._ask_pinned(call, self._champion)
                if again:
                    self._tally.compared(version, answers, again)

    async def _ask_pinned(self, call: Call, version: int) -> Answers | None:
        answers = self._read(call, await self._send(call, version))
        if answers:
            self._tally.pinned[version] += 1
        return answers

    async def _send(self, call: Call, version: int | None = None) -> Answer | None:
        number = "" if version is None else str(version)
        path = f"{MODEL}/versions/{number}" if number else MODEL
        try:
            if call.form == "grpc":
                message = self._flights.as_message(call.start, call.stop, MODEL, number)
                return await self._grpc.infer(message, within_s=WITHIN_S)
            if call.form == "json":
                return await self._http.infer(path, self._flights.as_json(call.start, call.stop), within_s=WITHIN_S)
            body, headers = self._flights.as_binary(call.start, call.stop)
            return await self._http.infer(path, body, headers, WITHIN_S)
        except (OSError, TimeoutError) as error:
            self._tally.failed(f"{call.protocol}: {type(error).__name__} {error}")
            return None

    def _read(self, call: Call, answer: Answer | None) -> Answers | None:
        if answer is None:
            return None
        if answer.status != (0 if call.form == "grpc" else HTTP_OK):
            self._tally.failed(f"{call.protocol} {answer.status}: {answer.body[:200].decode(errors='replace')}")
            return None
        answers = read_grpc(answer) if call.form == "grpc" else read_http(answer)
        if len(answers.labels) != call.stop - call.start:
            self._tally.failed(f"{call.protocol}: {len(answers.labels)} rows for {call.stop - call.start} flights")
            return None
        return answers
