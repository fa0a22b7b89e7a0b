"""The list of faults: what is done, what callers may see of it, and how soon it must be over."""

import signal
from pathlib import Path
from typing import Final

from bench.faults import moody
from bench.faults.scenes import (
    CLOSED,
    IN_PROCESS,
    OTHER,
    WIDE,
    Scene,
    call_with,
    forked_and_killed,
    garbage,
    killed_mid_frame,
    killed_while_loading,
    signalled,
    stopped_for,
    truncated_publication,
)

_LOST: Final = frozenset({"503"})
_FAULT: Final = frozenset({"500"})
_LATE: Final = frozenset({"429", "503", "504"})  # who would wait too long is told so at once
_GONE: Final = frozenset({CLOSED, "503", "504"})
_GATEWAY: Final = "gateway.main"
_CONTROL: Final = "turnout.control.main"


def _socket(model: str, folder: Path | None) -> str:
    """Return what only the command line of this model's worker holds; nothing for one that is not served."""
    if folder is None or not (folder / model).exists():
        return ""
    order = sorted(path.name for path in folder.iterdir() if path.name.startswith(("py", "spi", WIDE)))
    return f"/{order.index(model)}.sock "


def scenes(folder: Path | None) -> list[Scene]:
    """Return every fault of one running gateway of FOLDER, in an order in which each finds it healthy."""
    word = {name: _socket(name, folder) for name in ("py0", "py1", "py2", "py3", "spi0", "spi1", WIDE)}
    return [
        Scene("worker killed", "`kill -9` of a Python worker", "py0", signalled(word["py0"], signal.SIGKILL), _LOST),
        Scene("JVM worker killed", "`kill -9` of a JVM worker", "spi0", signalled(word["spi0"], signal.SIGKILL), _LOST),
        Scene(
            "worker stopped",
            "SIGSTOP to a Python worker",
            "py1",
            signalled(word["py1"], signal.SIGSTOP),
            _LATE,
            within_s=16,
        ),
        Scene("garbage on a worker's socket", "five connections that send no frames", "py0", garbage(word["py0"])),
        Scene(
            "worker killed amid a frame",
            "`kill -9` while 8 MiB were on their way to it",
            WIDE,
            killed_mid_frame(WIDE, word[WIDE]),
            _LATE,
            within_s=6,
        ),
        Scene(
            "worker killed between hello and ready",
            "`kill -9`, and again while its successor loaded",
            "py3",
            killed_while_loading(word["py3"]),
            _LOST,
            within_s=8,
        ),
        Scene(
            "model blocks for ever",
            "a call that never ends, in a worker",
            "py3",
            call_with("py3", moody.BLOCK),
            _LATE,
            within_s=16,
        ),
        Scene("model ends its process", "`os._exit` in a worker", "py0", call_with("py0", moody.EXIT_NOW), _LOST),
        Scene("model calls sys.exit", "`sys.exit` in a worker", "py0", call_with("py0", moody.EXIT), _FAULT),
        Scene("model forks", "`os.fork` in a worker; the child lives 20 s", "py1", call_with("py1", moody.FORK)),
        Scene(
            "model leaks threads", "20 threads that are no daemons, in a worker", "py1", call_with("py1", moody.THREADS)
        ),
        Scene("model prints", "60 kB, and bytes that are no text, on stdout", "py1", call_with("py1", moody.PRINT)),
        Scene("model answers NaN", "NaN where JSON was asked for", "py1", call_with("py1", moody.NAN), _FAULT),
        Scene(
            "model answers a wrong shape",
            "a matrix instead of a vector",
            "py1",
            call_with("py1", moody.WRONG_SHAPE),
            _FAULT,
        ),
        Scene("model answers too many rows", "two rows for one", "py1", call_with("py1", moody.TOO_MANY_ROWS), _FAULT),
        Scene("model raises", "an exception in a worker", "py1", call_with("py1", moody.RAISE), _FAULT),
        Scene(
            "JVM out of memory", "a call that fills a heap of 64 MiB", "spi0", call_with("spi0", moody.MEMORY), _LOST
        ),
        Scene("JVM model exits", "`System.exit` in a call", "spi1", call_with("spi1", moody.EXIT), _LOST),
        Scene(
            "JVM model blocks for ever",
            "a call that never ends",
            "spi1",
            call_with("spi1", moody.BLOCK),
            _LATE,
            within_s=16,
        ),
        Scene("JVM model prints", "60 kB on System.out", "spi0", call_with("spi0", moody.PRINT)),
        Scene(
            "scikit-learn model calls sys.exit",
            "`sys.exit` inside the gateway process",
            IN_PROCESS,
            call_with(IN_PROCESS, moody.EXIT),
            _FAULT,
        ),
        Scene(
            "scikit-learn model blocks a thread for ever",
            "300 rows at once, so that the call runs on a thread",
            IN_PROCESS,
            call_with(IN_PROCESS, moody.BLOCK, rows=300),
            _LATE,
            within_s=45,
            lasts_s=14,
        ),
        Scene(
            "gateway process killed",
            "`kill -9` of the only one",
            OTHER,
            signalled(_GATEWAY, signal.SIGKILL),
            _GONE,
            _GONE,
            25,
        ),
        Scene(
            "gateway process stopped",
            "SIGSTOP to the only one",
            OTHER,
            signalled(_GATEWAY, signal.SIGSTOP),
            _GONE,
            _GONE,
            25,
        ),
        Scene(
            "gateway process stopped for 3 s",
            "SIGSTOP, and SIGCONT 3 s later",
            OTHER,
            stopped_for(_GATEWAY, 3.0),
            _GONE,
            _GONE,
            6,
        ),
        Scene("control killed", "`kill -9` of control", OTHER, signalled(_CONTROL, signal.SIGKILL)),
        Scene("control stopped for 5 s", "SIGSTOP, and SIGCONT 5 s later", OTHER, stopped_for(_CONTROL, 5.0)),
        Scene(
            "published snapshot truncated",
            "the file cut to 100 bytes, then `kill -9` of the gateway process",
            OTHER,
            truncated_publication,
            _GONE,
            _GONE,
            25,
        ),
        Scene(
            "scikit-learn model forks",
            "`os.fork` inside the gateway process, then `kill -9` of that",
            IN_PROCESS,
            forked_and_killed(IN_PROCESS),
            _GONE,
            _GONE,
            25,
        ),
        Scene(
            "scikit-learn model ends its process",
            "`os._exit` inside the gateway process",
            IN_PROCESS,
            call_with(IN_PROCESS, moody.EXIT_NOW),
            _GONE,
            _GONE,
            25,
        ),
        Scene(
            "scikit-learn model blocks for ever",
            "a call that never ends on the gateway process's loop",
            IN_PROCESS,
            call_with(IN_PROCESS, moody.BLOCK),
            _GONE,
            _GONE,
            30,
        ),
    ]
