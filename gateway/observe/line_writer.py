"""Lines on a file descriptor, from a thread of its own. Whoever hands one over never waits, not even at exit.

A full queue, or a reader that has stopped, costs lines and a count; nothing else.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

GATHER_S: Final = 0.05  # one wake for many lines: each wake takes the interpreter from the request path
PIECE_BYTES: Final = 4096  # a pipe takes so much in one piece: lines of several processes do not mix


class LineWriter(Generic[T]):
    """`encode` turns an item into one line, on the writer's thread; `dropped` counts, on the thread of `offer`.

    `offer` has one caller at a time. The descriptor stays the caller's; it is written without Python's buffers,
    whose locks could hold up the exit.
    """

    def __init__(
        self, fd: int, encode: Callable[[T], bytes], dropped: Callable[[int], None], *, capacity: int = 4096
    ) -> None:
        self._fd = fd
        self._encode = encode
        self._dropped = dropped
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._failed = 0  # this and the next: written by the writer's thread alone
        self._in_hand = 0
        self._told = 0
        self._wake = threading.Event()
        self._waits = False  # for a wake; a plain flag costs less to look at than the event
        self._closed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()

    def offer(self, item: T) -> None:
        """Hand an item over, or drop and count it. Once closed it takes nothing more."""
        if self._closed:
            return
        if self._failed != self._told:
            self._tell_failed()
        if len(self._items) >= self._capacity:
            self._dropped(1)
            return
        self._items.append(item)
        if self._waits:
            self._waits = False
            self._wake.set()

    def close(self, within_s: float) -> None:
        """Write what waits, at most `within_s` long, and count what could not be written."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._wake.set()
        self._thread.join(within_s)
        lost = self._failed - self._told + self._in_hand + len(self._items)
        if lost:
            self._dropped(lost)

    def _tell_failed(self) -> None:
        failed = self._failed
        self._dropped(failed - self._told)
        self._told = failed

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._waits = True  # whoever offers from here on sees it; what was offered before is seen below
            if not self._items and not self._stop.is_set():  # an end that came before the clearing is seen here
                self._wake.wait()
            self._waits = False
            self._stop.wait(GATHER_S)
            self._write_waiting()

    def _write_waiting(self) -> None:
        piece = bytearray()
        lines = 0
        while self._items:
            try:
                line = self._encode(self._items[0])
            except Exception:  # noqa: BLE001  a line that cannot be written must not end the log
                self._failed += 1
                self._items.popleft()
                continue
            if lines and len(piece) + len(line) > PIECE_BYTES:
                self._write(piece, lines)
                piece, lines = bytearray(), 0
            self._items.popleft()
            piece += line
            lines += 1
        if lines:
            self._write(piece, lines)

    def _write(self, piece: bytearray, lines: int) -> None:
        left = memoryview(piece)
        self._in_hand = lines
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll()
            except OSError:
                self._failed += lines
                break
        self._in_hand = 0
