"""Lines that nobody waits for: bounded, counted, whole, and no hindrance at the exit."""

import os
import subprocess
import sys
import threading

import pytest

from gateway.observe.line_writer import LineWriter
from tests.waiting import eventually


class Counted:
    """A count of drops."""

    def __init__(self):
        self.value = 0

    def __call__(self, lines):
        self.value += lines


@pytest.fixture
def pipe():
    """A pipe, closed at the end."""
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


def encoded(text):
    """Encode a line; refuse one that says so."""
    if text == "broken":
        raise ValueError(text)
    return text.encode() + b"\n"


def filled(writing):
    """Fill a pipe, as a reader that has stopped does."""
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 65536)
    except BlockingIOError:
        os.set_blocking(writing, True)


def test_lines_arrive_in_order(pipe):
    """Lines come out whole and in order; one that cannot be encoded is counted and left out."""
    reading, writing = pipe
    dropped = Counted()
    writer = LineWriter(writing, encoded, dropped)
    for text in ("a", "broken", "b" * 5000, "c"):
        writer.offer(text)
    writer.close(10)
    assert os.read(reading, 65536).decode().split("\n") == ["a", "b" * 5000, "c", ""]
    assert dropped.value == 1


def test_stopped_reader_costs_lines_only(pipe):
    """With a full pipe, offering goes on at once, the queue stays bounded, and all that is lost is counted."""
    _, writing = pipe
    filled(writing)
    dropped = Counted()
    writer = LineWriter(writing, encoded, dropped, capacity=100)
    for _ in range(1000):
        writer.offer("line")
    assert dropped.value >= 800
    assert len(writer._items) <= 100
    writer.close(0.05)
    assert dropped.value == 1000


def test_nobody_reads_any_more(pipe):
    """A closed reader costs lines and their count, not an error."""
    reading, writing = pipe
    os.close(reading)
    dropped = Counted()
    writer = LineWriter(writing, encoded, dropped)
    writer.offer("a")
    eventually(lambda: writer._failed == 1)
    writer.offer("b")
    assert dropped.value == 1
    writer.close(10)
    assert dropped.value == 2


def test_nonblocking_descriptor_is_waited_for(pipe):
    """A descriptor that somebody made non-blocking loses nothing as long as it is read."""
    reading, writing = pipe
    filled(writing)
    os.set_blocking(writing, False)
    dropped = Counted()
    writer = LineWriter(writing, encoded, dropped)
    writer.offer("line")
    found = bytearray()
    reader = threading.Thread(target=lambda: found.extend(b"".join(iter(lambda: os.read(reading, 65536), b""))))
    reader.start()
    writer.close(10)
    os.close(writing)
    reader.join(10)
    assert found.endswith(b"xline\n")
    assert dropped.value == 0


def test_closed_writer_takes_nothing(pipe):
    """After the end lines are neither taken nor counted, and closing again does nothing."""
    _, writing = pipe
    dropped = Counted()
    writer = LineWriter(writing, encoded, dropped)
    writer.close(10)
    writer.offer("late")
    writer.close(10)
    assert dropped.value == 0


SCRIPT = """
import os, sys
from gateway.observe.line_writer import LineWriter
writer = LineWriter(1, lambda text: text.encode(), lambda lines: None)
for _ in range(4000):
    writer.offer("x" * 200)
os.write(2, b"offered")
"""


def test_exit_does_not_wait_for_a_stopped_reader():
    """A process whose log nobody reads exits all the same."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(30) == 0
        assert process.stderr.read() == b"offered"
