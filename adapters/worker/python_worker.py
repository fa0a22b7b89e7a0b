"""The reference worker: serves one Python class over a Unix socket, as docs/worker-protocol.md says.

Runs in the model's own interpreter, which needs numpy and nothing of ours but this folder (and ml_dtypes for BF16).
The main thread runs the model, one call at a time; another reads and answers the rest, also while the model works.
"""

import argparse
import collections
import math
import os
import platform
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from adapters.worker import frames
from adapters.worker.frames import BadFrame, Frame, FrameReader, FrameType, Part
from adapters.worker.python_model import Refused, Served

MAX_QUEUED: Final = 4096
MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
LOAD_FAILED_STATUS: Final = 1
_READ_BYTES: Final = 1 << 20
_LAST_WORDS_S: Final = 1.0


class Connection:
    """A client: what it sent, and what it has not read yet. Both threads send."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.reader = FrameReader()
        self.greeted = False
        self.closing = False
        self._lock = threading.Lock()
        self._unsent: collections.deque[memoryview] = collections.deque()
        self._unsent_bytes = 0

    def send(self, kind: FrameType, request: int, parts: Sequence[Part] | None = None) -> bool:
        """Send a frame; return whether the client has taken it whole. Raises OSError when it is gone or reads too late.

        Raises ValueError for a frame over the limit.
        """
        pieces = frames.pack(kind, request, parts)
        with self._lock:
            for piece in pieces:
                if len(piece):
                    self._unsent.append(memoryview(piece))
                    self._unsent_bytes += len(piece)
            return self._flush()

    def refuse(self, request: int, code: str, message: str) -> bool:
        """Send an ERROR frame."""
        return self.send(FrameType.ERROR, request, [frames.text("code", code), frames.text("message", message)])

    def flush(self) -> bool:
        """Send on; return whether nothing is left. Raises OSError."""
        with self._lock:
            return self._flush()

    def last_words(self) -> None:
        """Send what is left, waiting a moment, and close."""
        with self._lock:
            self.peer.settimeout(_LAST_WORDS_S)
            try:
                for piece in self._unsent:
                    self.peer.sendall(piece)
            except OSError:
                self._unsent.clear()
            self.peer.close()

    def _flush(self) -> bool:
        while self._unsent:
            first = self._unsent[0]
            try:
                written = self.peer.send(first)
            except BlockingIOError:
                break
            self._unsent_bytes -= written
            if written == len(first):
                self._unsent.popleft()
            else:
                self._unsent[0] = first[written:]
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            raise ConnectionError("the client does not read")
        return not self._unsent


class Job(NamedTuple):
    """A request that waits for the model: LOAD, PREDICT or PING."""

    connection: Connection
    type: int
    id: int
    parts: Sequence[Part]
    deadline_s: float


class Worker:
    """The socket, the queue between the two threads, and the model."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(path).unlink(missing_ok=True)
        self._listener.bind(path)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._connections: dict[Any, Connection] = {}
        self._queue: collections.OrderedDict[tuple[int, int], Job] = collections.OrderedDict()
        self._changed = threading.Condition()
        self._slow: collections.deque[Connection] = collections.deque()  # they have something unsent
        self._counters = dict.fromkeys(("started", "cancelled", "expired"), 0)
        self._served: Served | None = None
        self._loading = False
        self._draining = False

    def run(self) -> int:
        """Serve until DRAIN or a failed LOAD; return the exit status. The model runs in the calling thread."""
        threading.Thread(target=self._read_for_ever, name="frames", daemon=True).start()
        while True:
            with self._changed:
                while not self._queue:
                    if self._draining:
                        return self._leave(0)
                    self._changed.wait()
                job = self._queue.popitem(last=False)[1]
            try:
                finished = self._run(job)
            except OSError:
                continue  # the client is gone; the other thread sees it too
            if not finished:
                self._slow.append(job.connection)
                self._wake()
            if self._loading and self._served is None:
                return self._leave(LOAD_FAILED_STATUS)

    def _run(self, job: Job) -> bool:
        if job.type == FrameType.LOAD:
            return self._load(job)
        if job.type == FrameType.PING:
            return self._pong(job.connection, job.id)
        if time.monotonic() >= job.deadline_s:
            self._counters["expired"] += 1
            return job.connection.refuse(job.id, "deadline", "the deadline passed before the model started")
        return self._predict(job)

    def _predict(self, job: Job) -> bool:
        assert self._served is not None
        self._counters["started"] += 1
        try:
            return job.connection.send(FrameType.RESULT, job.id, self._served.predict(job.parts))
        except Refused as refused:
            return job.connection.refuse(job.id, refused.code, refused.message)
        except BadFrame as error:
            return job.connection.refuse(job.id, error.code, str(error))
        except ValueError as error:
            return job.connection.refuse(job.id, "model_fault", f"the answer cannot travel: {error}")

    def _load(self, job: Job) -> bool:
        reason = ""
        try:
            self._served = Served({part.name: part for part in job.parts})
        except Refused as refused:
            reason = refused.message
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the model's code raises is the reason
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        if self._served is not None:
            return job.connection.send(FrameType.LOADED, job.id, self._served.describe())
        return job.connection.refuse(job.id, "load_failed", " ".join(reason.split()))

    def _pong(self, connection: Connection, request: int) -> bool:
        counters = {**self._counters, "queued": len(self._queue)}
        return connection.send(
            FrameType.PONG,
            request,
            [Part(name, "INT64", (1,), value.to_bytes(8, "little")) for name, value in counters.items()],
        )

    def _leave(self, status: int) -> int:
        self._listener.close()
        for connection in list(self._connections.values()):
            connection.last_words()
        return status

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"!")
        except BlockingIOError:
            return  # it has enough to wake up for

    def _read_for_ever(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_read:
                    self._wake_read.recv(4096)
                elif key.fileobj in self._connections:
                    self._serve(self._connections[key.fileobj])
            while self._slow:
                self._settle(self._slow.popleft())

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # it left again, or we are leaving
        peer.setblocking(False)
        self._connections[peer] = Connection(peer)
        self._selector.register(peer, selectors.EVENT_READ)

    def _serve(self, connection: Connection) -> None:
        try:
            data = connection.peer.recv(_READ_BYTES)
            if not data:
                self._drop(connection)
                return
            for frame in connection.reader.feed(data):
                if not connection.closing:
                    self._take(connection, frame)
        except BlockingIOError:
            pass  # there was only something to write
        except BadFrame as error:
            connection.closing = True
            self._refuse_last(connection, error)
        except OSError:
            self._drop(connection)
            return
        self._settle(connection)

    def _refuse_last(self, connection: Connection, error: BadFrame) -> None:
        try:
            connection.refuse(error.id, error.code, str(error))
        except OSError:
            return  # gone before it could hear

    def _settle(self, connection: Connection) -> None:
        """Write what can be written, and ask to be told when more can."""
        if connection.peer not in self._connections:
            return
        try:
            finished = connection.flush()
        except OSError:
            self._drop(connection)
            return
        if finished and connection.closing:
            self._drop(connection)
            return
        self._selector.modify(connection.peer, selectors.EVENT_READ | (0 if finished else selectors.EVENT_WRITE))

    def _drop(self, connection: Connection) -> None:
        """Let a client go, with all that it has waiting."""
        self._selector.unregister(connection.peer)
        del self._connections[connection.peer]
        connection.peer.close()
        with self._changed:
            for key in [key for key, job in self._queue.items() if job.connection is connection]:
                del self._queue[key]
                self._counters["cancelled"] += 1

    def _take(self, connection: Connection, frame: Frame) -> None:
        """Answer a frame, or put it into the queue. Raises BadFrame, OSError."""
        if not connection.greeted:
            if frame.type != FrameType.HELLO:
                raise BadFrame("HELLO comes first", id=frame.id)
            frames.unpack(frame)
            connection.greeted = True
            connection.send(FrameType.HELLO, frame.id, [frames.text("worker", f"python {platform.python_version()}")])
        elif frame.type == FrameType.DESCRIBE:
            if self._served is None:
                connection.refuse(frame.id, "not_ready", "no model is loaded")
            else:
                connection.send(FrameType.LOADED, frame.id, self._served.describe())
        elif frame.type == FrameType.CANCEL:
            self._cancel(connection, frame.id)
        elif frame.type == FrameType.DRAIN:
            with self._changed:
                self._draining = True
                self._changed.notify()
        elif frame.type == FrameType.PING and self._served is None:
            self._pong(connection, frame.id)
        elif frame.type in (FrameType.PREDICT, FrameType.PING) or (frame.type == FrameType.LOAD and not self._loading):
            self._enqueue(connection, frame)
        else:
            connection.refuse(frame.id, "unsupported", f"frame type {frame.type} is not for this worker, or not now")

    def _enqueue(self, connection: Connection, frame: Frame) -> None:
        parts = frames.unpack(frame) if frame.payload else []
        left_s = math.inf if frame.deadline_ms == frames.NO_DEADLINE else frame.deadline_ms / 1000
        if frame.type == FrameType.LOAD:
            self._loading = True
        elif self._served is None or self._draining:
            connection.refuse(frame.id, "not_ready", "draining" if self._draining else "no model is loaded")
            return
        elif frame.type == FrameType.PREDICT and len(self._queue) >= MAX_QUEUED:
            connection.refuse(frame.id, "overloaded", f"{MAX_QUEUED} predictions wait")
            return
        key = id(connection), frame.id
        with self._changed:
            self._queue[key] = Job(connection, frame.type, frame.id, parts, time.monotonic() + left_s)
            if frame.type == FrameType.PING:
                self._queue.move_to_end(key, last=False)
            self._changed.notify()

    def _cancel(self, connection: Connection, request: int) -> None:
        with self._changed:
            job = self._queue.pop((id(connection), request), None)
            self._counters["cancelled"] += job is not None
        if job is not None:
            connection.refuse(request, "cancelled", "cancelled before it started")


def _leave_with_parent() -> None:
    """Exit when standard input ends, also out of a model that hangs."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> NoReturn:
    """Serve at `--socket`."""
    parser = argparse.ArgumentParser(description="A Turnout worker for one Python class.")
    parser.add_argument("--socket", required=True)
    arguments = parser.parse_args()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    status = Worker(arguments.socket).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread that the model left behind must not keep the process


if __name__ == "__main__":
    main()
