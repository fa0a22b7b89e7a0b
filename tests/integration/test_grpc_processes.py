"""Processes behind the gRPC port: one replaces the other without a lost call, and a packed bomb fills none."""

import asyncio
import collections
import contextlib
import re
import socket
import sys
from pathlib import Path

import grpc
import grpc.aio

from gateway.limits import Limits
from tests.contract.grpc_client import NO_LIMITS, raw_request
from tests.waiting import eventually_async

CLIENTS = 8
REPLACEMENTS = 3
CALLS_EACH = 200
AGE_S, DRAIN_S = 0.5, 20.0


@contextlib.asynccontextmanager
async def held_port():
    """Keep a port as the parent does: bound with SO_REUSEPORT, never listening."""
    with socket.socket() as hold:
        hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        hold.bind(("127.0.0.1", 0))
        yield hold.getsockname()[1]


async def start(port, age_s=AGE_S):
    """Start a door process and wait until it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.grpc_door_process", str(port), str(age_s), str(DRAIN_S)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await process.stdout.readline() == b"up\n"
    return process


async def leave(process):
    """Have a door process leave, and wait for its end."""
    process.stdin.close()
    assert await process.stdout.readline() == b"gone\n"
    assert await process.wait() == 0


async def call_for_ever(port, codes):
    """Call, half of the time over a fresh connection; keep each outcome."""
    request = raw_request("m").SerializeToString()
    for lifetime in range(1_000_000):
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(20 if lifetime % 2 else 400):
                call = infer(request, timeout=30)
                codes[await call.code()] += 1


async def test_replacing_a_process_under_load_loses_no_call():
    """Callers that never retry see nothing but answers while one process after the other takes the port over."""
    codes = collections.Counter()
    async with held_port() as port:
        process = await start(port)
        callers = [asyncio.create_task(call_for_ever(port, codes)) for _ in range(CLIENTS)]
        for _ in range(REPLACEMENTS):
            before = codes.total()
            await eventually_async(lambda before=before: codes.total() > before + CALLS_EACH, 60)
            fresh = await start(port)
            await leave(process)
            process = fresh
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await leave(process)
    assert set(codes) == {grpc.StatusCode.OK}


def peak_bytes(process):
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


async def send_packed(port, size):
    """Send so many zeros, packed, and return how the call ended."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_LIMITS) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return await infer(bytes(size), compression=grpc.Compression.Gzip, timeout=60).code()


async def test_a_packed_bomb_is_never_unpacked_whole():
    """A message that unpacks to three times the limit costs the server little more memory than the limit."""
    limit = Limits().message_bytes
    async with held_port() as port:
        process = await start(port, age_s=DRAIN_S / 2)
        before = peak_bytes(process)
        assert await send_packed(port, 3 * limit) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_bytes(process) - before < 1.25 * limit
        await leave(process)
