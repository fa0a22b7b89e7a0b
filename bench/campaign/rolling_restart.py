"""Gateway processes are replaced under load, and the machine drains: clients that never retry see no failure.

Rolling restarts come in three ways: `turnout gateway restart`, SIGHUP to the parent, SIGTERM to each gateway process.
Clients: HTTP and gRPC over kept and over fresh connections, and gRPC streams that wait for each answer. A stream that
the server ends with UNAVAILABLE between two answers is opened again; a request that was sent on it and not answered is
a failure. A refused connection is a failure too, but in the drain of the whole machine: there is nobody left to connect
to, and nothing was asked. A stream that ends in that drain is not opened again.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc

from bench import versions
from bench.campaign.harness import ROOT, Campaign, run
from bench.client import HttpClient, infer_message
from bench.launch import Gateway, serve
from turnout.core.wire import inference_pb2

BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
MESSAGE: Final = infer_message("one", {"x": ("FP64", [1], bytes(8))})
SERVICE: Final = "/inference.GRPCInferenceService"
FRESH_CALLS: Final = 5
"""After so many calls a client of fresh connections opens the next one."""
PAUSE_S: Final = 0.02
"""Between two requests of a client: the load is many clients, not a full machine."""
LOCAL: Final = [("grpc.use_local_subchannel_pool", 1)]
ENDED: Final = "the server is draining; open the stream again"


class Load:
    """Clients of both doors until `stop`. `answered` and `failures` count by kind of client."""

    def __init__(self, gateway: Gateway, clients: int, *, drains: bool = False) -> None:
        self.gateway = gateway
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.streams_ended = 0
        self.refused = 0
        self._clients = clients
        self._drains = drains
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all clients and wait until each kind has been answered."""
        self._task = asyncio.create_task(self._run())
        while len(self.answered) < len(self._kinds()):
            await asyncio.sleep(0.05)
            if self._task.done():
                await self._task

    async def end(self) -> None:
        """Stop all clients."""
        self._stop.set()
        if self._task is not None:
            await self._task

    def _kinds(self) -> dict[str, Callable[[str], Awaitable[None]]]:
        return {
            "http kept": lambda kind: self._http(kind, fresh=False),
            "http fresh": lambda kind: self._http(kind, fresh=True),
            "grpc kept": lambda kind: self._grpc(kind, fresh=False),
            "grpc fresh": lambda kind: self._grpc(kind, fresh=True),
            "grpc stream": self._stream,
        }

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, client in self._kinds().items():
                for _ in range(self._clients):
                    group.create_task(self._client(kind, client))

    async def _client(self, kind: str, client: Callable[[str], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            try:
                await client(kind)
            except ConnectionRefusedError as error:
                self._take_refusal(kind, repr(error))
                if self._drains:
                    return
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{kind}: {error!r}")
            except grpc.aio.AioRpcError as error:
                if "Failed to connect" not in str(error.details()):
                    self.failures.append(f"{kind}: {error.code()} {error.details()}")
                else:
                    self._take_refusal(kind, str(error.details()))
                    if self._drains:
                        return
            await asyncio.sleep(PAUSE_S)

    def _take_refusal(self, kind: str, text: str) -> None:
        self.refused += 1
        if not self._drains:
            self.failures.append(f"{kind}: {text}")

    async def _http(self, kind: str, *, fresh: bool) -> None:
        async with HttpClient(self.gateway.http, 1) as http:
            count = 0
            while not self._stop.is_set() and (not fresh or count < FRESH_CALLS):
                answer = await http.infer("one", BODY)
                if answer.status == 200 and answer.json()["outputs"][0]["data"] == [1.0]:
                    self.answered[kind] += 1
                else:
                    self.failures.append(f"{kind}: {answer.status} {answer.body[:200]!r}")
                count += 1
                await asyncio.sleep(PAUSE_S)

    async def _grpc(self, kind: str, *, fresh: bool) -> None:
        async with grpc.aio.insecure_channel(self.gateway.grpc, LOCAL) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            count = 0
            while not self._stop.is_set() and (not fresh or count < FRESH_CALLS):
                self._check(kind, inference_pb2.ModelInferResponse.FromString(await infer(MESSAGE, timeout=30)))
                count += 1
                await asyncio.sleep(PAUSE_S)

    async def _stream(self, kind: str) -> None:
        async with grpc.aio.insecure_channel(self.gateway.grpc, LOCAL) as channel:
            opened = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
            while not self._stop.is_set():
                stream = opened(timeout=600)
                try:
                    await self._exchange(kind, stream)
                except grpc.aio.AioRpcError as error:
                    if error.details() != ENDED:
                        raise
                    self.streams_ended += 1  # before a request was sent
                    if self._drains:
                        raise ConnectionRefusedError from error  # there is no other machine to open it on

    async def _exchange(self, kind: str, stream: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        """Ask and wait for the answer, again and again. Raises AioRpcError where the stream ends in between."""
        while not self._stop.is_set():
            if stream.done():
                code, details = await stream.code(), str(await stream.details())
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
            await stream.write(MESSAGE)
            answer = await stream.read()
            if not isinstance(answer, bytes):
                raise ConnectionError(f"a request on a stream was not answered: {await stream.details()}")
            message = inference_pb2.ModelStreamInferResponse.FromString(answer)
            if message.error_message:
                self.failures.append(f"{kind}: {message.error_message}")
            else:
                self._check(kind, message.infer_response)
            await asyncio.sleep(PAUSE_S)
        stream.cancel()

    def _check(self, kind: str, answer: inference_pb2.ModelInferResponse) -> None:
        if memoryview(answer.raw_output_contents[0]).cast("d")[0] == 1.0:
            self.answered[kind] += 1
        else:
            self.failures.append(f"{kind}: a wrong answer")


def processes(gateway: Gateway) -> set[int]:
    """Return the gateway processes."""
    return {pid for pid, command in gateway.descendants().items() if "gateway.main" in command}


async def by_command(gateway: Gateway, state: Path) -> None:
    """Restart by the operator's command."""
    command = [sys.executable, "-m", "turnout.cli.main", "gateway", "restart", "--state", str(state)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"turnout gateway restart: {done.stdout}{done.stderr}{gateway.log[-5:]}")


async def by_hangup(gateway: Gateway, _state: Path) -> None:
    """Restart by SIGHUP to the parent."""
    before = processes(gateway)
    gateway.process.send_signal(signal.SIGHUP)
    await gone(gateway, before)


async def by_terminate(gateway: Gateway, _state: Path) -> None:
    """Restart by SIGTERM to each gateway process, one after the other."""
    for pid in sorted(processes(gateway)):
        os.kill(pid, signal.SIGTERM)
        await gone(gateway, {pid})


async def gone(gateway: Gateway, pids: set[int]) -> None:
    """Wait until these processes are no more. Raises RuntimeError after two minutes."""
    until = time.monotonic() + 120
    while processes(gateway) & pids:
        if time.monotonic() > until:
            raise RuntimeError(f"{processes(gateway) & pids} have not left: {gateway.log[-5:]}")
        await asyncio.sleep(0.1)


WAYS: Final = {"command": by_command, "SIGHUP": by_hangup, "SIGTERM to each": by_terminate}


async def restart(campaign: Campaign, gateway: Gateway, state: Path, rounds: int, clients: int) -> None:
    """Restart under load, each way in turn, and judge what the clients saw."""
    load = Load(gateway, clients)
    await load.start()
    replaced = 0
    for number in range(rounds):
        way = list(WAYS)[number % len(WAYS)]
        before = processes(gateway)
        await WAYS[way](gateway, state)
        replaced += len(before - processes(gateway))
        print(
            f"  restart {number + 1} by {way}: {sum(load.answered.values())} answered, {load.failures[:1]}", flush=True
        )
    await load.end()
    campaign.note("answered", dict(load.answered))
    campaign.note("streams that were ended between two answers", load.streams_ended)
    campaign.note("first failures", load.failures[:5])
    campaign.at_least("processes replaced", replaced, rounds)
    campaign.at_least("streams ended by a leaving process", load.streams_ended, 1)
    campaign.equal("failed requests in rolling restarts", len(load.failures), 0)


async def drain(campaign: Campaign, gateway: Gateway, clients: int) -> None:
    """Drain the machine under load: what is asked is answered, until nobody can connect any more."""
    load = Load(gateway, clients, drains=True)
    await load.start()
    before = sum(load.answered.values())
    gateway.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(gateway.process.wait, 60)
    await load.end()
    campaign.note("answered before and in the drain", [before, sum(load.answered.values()) - before])
    campaign.note("clients that found nobody to connect to", load.refused)
    campaign.note("first failures in the drain", load.failures[:5])
    campaign.at_least("answered in the drain", sum(load.answered.values()) - before, 1)
    campaign.equal("failed requests in the drain of the machine", len(load.failures), 0)
    campaign.equal("exit status after the drain", code, 0)


def prove(
    campaign: Campaign, place: Path, *, processes: int, restarts: int, clients: int, drain_seconds: float
) -> None:
    """Restart and then drain one machine whose files lie in `place`."""
    folder, state = place / "models", place / "state"
    versions.write_onnx(folder / "one", 1.0)
    flags = ("--processes", str(processes), "--drain-seconds", f"{drain_seconds:g}")
    with serve(folder, state, *flags, prefix=("setsid",)) as gateway:  # without a terminal, whoever starts this
        asyncio.run(restart(campaign, gateway, state, restarts, clients))
        asyncio.run(drain(campaign, gateway, clients))


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Restart and drain, with one process and with several."""
    for count in arguments.processes:
        print(f"  {count} processes", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            prove(
                campaign,
                Path(temporary),
                processes=count,
                restarts=arguments.restarts,
                clients=arguments.clients,
                drain_seconds=arguments.drain_seconds,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=12)
    parser.add_argument("--clients", type=int, default=4, help="of each kind")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--drain-seconds", type=float, default=10.0)
    run("rolling-restart", check, parser)
