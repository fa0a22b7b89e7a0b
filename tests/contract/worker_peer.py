"""A worker under test, started as the parent starts one, and a client that speaks to it frame by frame."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from adapters.worker.command import WorkerCommand
from adapters.worker.frames import (
    Frame,
    FrameReader,
    FrameType,
    Part,
    pack,
    rows_of,
    table,
    text,
    texts_of,
    unpack,
)
from tests.waiting import eventually

ANSWER_S = 20.0


class Answer:
    """A frame from the worker, taken apart."""

    def __init__(self, frame: Frame) -> None:
        self.type = FrameType(frame.type)
        self.id = frame.id
        self.parts = {part.name: part for part in unpack(frame)} if frame.payload else {}

    @property
    def code(self) -> str:
        """The code of an ERROR."""
        assert self.type is FrameType.ERROR, self.type
        return texts_of(self.parts["code"])[0]

    @property
    def message(self) -> str:
        """The message of an ERROR."""
        return texts_of(self.parts["message"])[0]

    @property
    def counters(self) -> dict[str, int]:
        """The counters of a PONG."""
        assert self.type is FrameType.PONG
        return {name: int.from_bytes(part.data, "little", signed=True) for name, part in self.parts.items()}

    def rows(self, name: str, width: int) -> list[list[str]]:
        """Return a table."""
        return rows_of(self.parts[name], width)

    def floats(self, name: str) -> list[float]:
        """Return an FP64 tensor's elements."""
        part = self.parts[name]
        assert part.datatype == "FP64"
        return np.frombuffer(part.data, "<f8").tolist()


class Peer:
    """A connection to a worker."""

    def __init__(self, path: Path, *, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_S)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._reader = FrameReader()
        self._read: list[Frame] = []
        self._last = 0
        if greet:
            assert self.ask(FrameType.HELLO, [text("peer", "test")]).type is FrameType.HELLO

    def send(
        self, kind: FrameType, parts: Sequence[Part] | None = None, deadline_ms: int = 60_000, about: int = 0
    ) -> int:
        """Send a frame, with an id of its own or that of the request it is about, and return the id."""
        if not about:
            self._last = about = self._last + 1
        self.raw(b"".join(pack(kind, about, parts, deadline_ms)))
        return about

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def receive(self) -> Answer | None:
        """Return the next frame, or None once the worker closed the connection."""
        while not self._read:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._read += self._reader.feed(data)
        return Answer(self._read.pop(0))

    def answers(self, count: int) -> dict[int, Answer]:
        """Return the next `count` frames by id."""
        found = [self.receive() for _ in range(count)]
        assert None not in found, "the worker closed the connection"
        return {answer.id: answer for answer in found}

    def ask(self, kind: FrameType, parts: Sequence[Part] | None = None, deadline_ms: int = 60_000) -> Answer:
        """Send a frame and return its answer."""
        request = self.send(kind, parts, deadline_ms)
        answer = self.receive()
        assert answer is not None, "the worker closed the connection"
        assert answer.id == request
        return answer

    def predict(self, x: Sequence[float], hold_ms: int = 0, deadline_ms: int = 60_000, **more: Part) -> int:
        """Send a PREDICT to the model that all workers serve in these tests."""
        parts = [
            Part("x", "FP64", (len(x),), np.array(x, "<f8").tobytes()),
            Part("hold_ms", "INT64", (len(x),), np.array([hold_ms, *[0] * (len(x) - 1)], "<i8").tobytes()),
        ]
        return self.send(FrameType.PREDICT, [*parts, *more.values()], deadline_ms)

    def close(self) -> None:
        """Leave."""
        self.socket.close()


class RunningWorker:
    """A worker's process, its socket, and what it said."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
        self.process = process
        self.path = path
        self.log = log
        self._peers: list[Peer] = []

    def connect(self, *, greet: bool = True) -> Peer:
        """Return a new connection, waiting until the worker listens."""
        peer = eventually(lambda: self._connected(greet=greet), ANSWER_S, "the worker listens")
        assert peer is not None
        self._peers.append(peer)
        return peer

    def _connected(self, *, greet: bool) -> Peer | None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker is gone: {self.log.read_text()}")
        try:
            return Peer(self.path, greet=greet)
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(ANSWER_S)

    def end(self) -> None:
        """Close all and kill the worker's group."""
        for peer in self._peers:
            peer.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(ANSWER_S)
        assert self.process.stdin is not None
        self.process.stdin.close()


def load_parts(directory: Path, artifact: str, options: Mapping[str, Any], **samples: Part) -> list[Part]:
    """Return the payload of LOAD."""
    written = [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in options.items()]
    return [
        text("directory", str(directory)),
        text("artifact", artifact),
        table("options", written, 2),
        *samples.values(),
    ]


@contextmanager
def started(command: WorkerCommand, folder: Path) -> Iterator[RunningWorker]:
    """Start a worker whose socket lies in `folder`, and end it."""
    path, log = folder / "s", folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command.argv, "--socket", str(path)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **command.environment},
            cwd=folder,
            process_group=0,
        )
    worker = RunningWorker(process, path, log)
    try:
        yield worker
    finally:
        worker.end()
