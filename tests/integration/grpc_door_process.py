"""A process with nothing but a gRPC door: `python -m tests.integration.grpc_door_process PORT AGE_S DRAIN_S`.

It prints `up` when it serves, leaves when its standard input ends, and prints `gone` when the door has stopped.
"""

import asyncio
import sys

from gateway.doors.grpc import GrpcDoor
from gateway.limits import Limits
from tests.fake_backend import FakeBackend, echo
from turnout.core.tensor import Datatype


async def main() -> None:
    """Serve an echo model until standard input ends."""
    port, age_s, drain_s = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    backend = FakeBackend({"m": echo(Datatype.FP64)})
    door = GrpcDoor(backend, Limits(), repository_control=False, max_connection_age_s=age_s)
    await door.start("127.0.0.1", port, reuse_port=True)
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await door.stop(drain_s, relieved=True)
    print("gone", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
