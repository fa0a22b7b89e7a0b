"""Who runs on which core, and how much of it: servers on one, all load and this process on the other.

Times are seconds of processor time as the system accounts for them.
"""

import os
import resource
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.launch import descendants

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Spent(msgspec.Struct, frozen=True):
    """Shares of one core's time over a run: of the load, of the server, and of everybody else on the machine."""

    load: float
    server: float
    others: float


class Watch:
    """Watches one run against one server, from its making on."""

    def __init__(self, server_pid: int) -> None:
        self._pid = server_pid
        self._began = self._now()

    def spent(self) -> Spent:
        """Return the shares until now."""
        wall, load, server, machine = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return Spent(round(load / wall, 4), round(server / wall, 4), round((machine - load - server) / wall, 4))

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), _load_s(), tree_s(self._pid), _machine_s()


def stay_beside() -> None:
    """Put this process, and all that it starts unless told otherwise, on the load's core. Raises RuntimeError."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise RuntimeError("two cores are needed: one for the server, one for the load")
    os.sched_setaffinity(0, {LOAD_CORE})


def tree_s(pid: int) -> float:
    """Return the time of a process and all its living descendants."""
    return sum(map(_process_s, (pid, *descendants(pid))))


def _process_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _load_s() -> float:
    """Return the time of this process, and of the loads that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _machine_s() -> float:
    """Return the time that all cores were busy; what the machine's host took away counts, too."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS
