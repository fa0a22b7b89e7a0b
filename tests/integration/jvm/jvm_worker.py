"""Starts workers as the parent does, by the command that the adapter names, and lets go of them."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from adapters.interface import ModelSource
from adapters.jvm.command import worker_command
from tests.integration.jvm.frames_by_hand import ERROR, LOAD, LOADED, Client, Frame, as_text, table
from turnout.core.manifest import DeclaredSignature
from turnout.core.tensor import Tensor, TensorMap


class Worker:
    """A started worker process and the parent's connection to it."""

    def __init__(self, source: ModelSource, process: asyncio.subprocess.Process, log: Path, client: Client) -> None:
        self.source = source
        self.process = process
        self.log = log
        self.client = client

    @property
    def socket(self) -> Path:
        """Where it listens."""
        assert self.source.socket is not None
        return self.source.socket

    async def load(
        self,
        *,
        inputs: Sequence[tuple[str, str, str]] | None = None,
        outputs: Sequence[tuple[str, str, str]] | None = None,
        samples: TensorMap | None = None,
    ) -> Frame:
        """Send LOAD and return the answer."""
        artifact = str(self.source.artifact)
        options = [[k, v if isinstance(v, str) else json.dumps(v)] for k, v in self.source.options.items()]
        payload = {
            "directory": Tensor.of(as_text([str(self.source.directory)])),
            "artifact": Tensor.of(as_text([artifact])),
            "options": Tensor.of(np.array(options, dtype=object).reshape(-1, 2)),
        }
        for half, specs in (("inputs", inputs), ("outputs", outputs)):
            if specs is not None:
                payload[half] = Tensor.of(np.array(specs, dtype=object).reshape(-1, 3))
        payload |= {f"sample.{name}": tensor for name, tensor in (samples or {}).items()}
        return await self.client.ask(LOAD, payload)

    async def loaded(self, **declared: Any) -> Frame:
        """Send LOAD and return LOADED; fails with the worker's reason and log."""
        answer = await self.load(**declared)
        if answer.type == ERROR:
            raise AssertionError(f"{answer.code}: {answer.message}\n{_said(self.log)}")
        assert answer.type == LOADED
        return answer

    async def stopped(self) -> int:
        """Wait for the process to end and return its status."""
        return await asyncio.wait_for(self.process.wait(), 30)


def properties(frame: Frame) -> dict[str, str]:
    """Return the properties of LOADED."""
    return dict(table(frame.tensors["properties"]))


def source_of(folder: Path, directory: Path, artifact: str, options: Mapping[str, Any], **more: Any) -> ModelSource:
    """Return what an adapter loads from, with socket and scratch in `folder`."""
    return ModelSource(
        name="model@1",
        directory=directory,
        artifact=Path(artifact),
        declared=DeclaredSignature(),
        options=options,
        trusted=more.get("trusted", True),
        scratch=more.get("scratch", folder / "scratch"),
        socket=folder / uuid.uuid4().hex[:12],  # its name is that of the worker's scratch folder, too
    )


@asynccontextmanager
async def running(source: ModelSource) -> AsyncIterator[Worker]:
    """Start a worker, connect, and end it on leaving."""
    command = await worker_command(source)
    assert source.socket is not None
    log = source.socket.with_suffix(".log")
    with log.open("wb") as noise:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            "--socket",
            str(source.socket),
            env={**os.environ, **command.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=noise,
            stderr=noise,
        )
    client = None
    try:
        client = await _connect(source.socket, process, log)
        yield Worker(source, process, log, client)
    finally:
        if client is not None:
            await client.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


async def _connect(socket: Path, process: asyncio.subprocess.Process, log: Path) -> Client:
    for _ in range(3000):
        try:
            return await Client.connect(socket)
        except (FileNotFoundError, ConnectionRefusedError):
            if process.returncode is not None:
                break
            await asyncio.sleep(0.01)
    raise AssertionError(f"the worker does not listen: {_said(log)}")


def _said(log: Path) -> str:
    return log.read_text()[-4000:]
