"""A kill -9 of the parent, while it serves and while it loads: after 5 s no process and no port is left of it.

Every machine has a Python, a jar and a Spark version. Some have a stopped worker and a stopped gateway process; the
Python model has started a program of its own. Then the same STATE and ports serve again.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench import versions
from bench.campaign.harness import Campaign, run
from bench.launch import Gateway, descendants
from gateway.parent.guard_program import carriers

GONE_S: Final = 5.0
BODY: Final = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[0]}]}'
READY_S: Final = 180.0
STARTS: Final = """        import subprocess
        import sys
        if not hasattr(self, "child"):
            code = "import time; time.sleep(3600)"
            self.child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        return"""


class Machine:
    """One `turnout serve` whose parent is going to be killed; `ports` are http, grpc, metrics and control."""

    def __init__(self, folder: Path, state: Path, ports: Sequence[int], processes: int) -> None:
        flags = ("--http-port", "--grpc-port", "--metrics-port", "--control-port")
        named = [word for pair in zip(flags, map(str, ports), strict=True) for word in pair]
        self.ports = ports
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "turnout.cli.main", "serve", str(folder), "--state", str(state)),
                *("--processes", str(processes), "--drain-seconds", "3", *named),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.gateway = Gateway(self.process)

    def predict(self, model: str) -> int:
        """Predict one row and return the status; one that is not ready yet, as Spark after 30 s, is waited for."""
        url = f"http://127.0.0.1:{self.ports[0]}/v2/models/{model}/infer"
        until = time.monotonic() + READY_S
        while True:
            try:
                with urllib.request.urlopen(urllib.request.Request(url, BODY), timeout=30) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > until:
                    return error.code
            time.sleep(0.2)

    def mark(self) -> bytes | None:
        """Return what all processes below the parent carry in their environment; None before there are any."""
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    if entry.startswith(b"TURNOUT_MACHINE="):
                        return entry
        return None

    def kill(self) -> tuple[float, list[str]]:
        """Kill the parent; return the seconds until all of it was gone, and what was still there after 5 s."""
        mark = self.mark()
        below = descendants(self.process.pid)
        killed = time.monotonic()
        self.process.kill()
        self.process.wait()
        while True:
            left = [pid for pid in {*below, *(carriers(mark) if mark else ())} if is_alive(pid)]
            took = time.monotonic() - killed
            if not left or took > GONE_S:
                break
            time.sleep(0.02)
        names = [below.get(pid, "?") for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return took, names


def is_alive(pid: int) -> bool:
    """Tell whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def taken(ports: Sequence[int]) -> list[int]:
    """Return the ports that somebody still holds."""
    held = []
    for port in ports:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                held.append(port)
    return held


def free_ports() -> list[int]:
    """Return four ports that nobody holds."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(4)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def write(folder: Path, *, jvm: bool) -> list[str]:
    """Write one version of each kind; return the models."""
    versions.write_onnx(folder / "one", 1.0)
    versions.write_python(folder / "py", 2.0)
    code = folder / "py" / "constant_model.py"
    code.write_text(code.read_text().replace("        return", STARTS))
    if not jvm:
        return ["one", "py"]
    versions.write_spi(folder / "spi", 3.0)
    versions.write_spark({folder / "spark": 4.0})
    return ["one", "py", "spi", "spark"]


def stop_some(machine: Machine) -> list[int]:
    """Stop one gateway process and the Python worker; return them."""
    below = descendants(machine.process.pid)
    stopped = [pid for pid, command in below.items() if "python_worker" in command][:1]
    stopped += [pid for pid, command in below.items() if "gateway.main" in command][:1]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return stopped


@contextlib.contextmanager
def ended(machine: Machine) -> Iterator[None]:
    """End a machine in order after the block."""
    try:
        yield
    finally:
        machine.gateway.stop(60)


class Tally:
    """What all trials together have shown."""

    def __init__(self) -> None:
        self.slowest_s = 0.0
        self.left: list[str] = []
        self.ports: list[int] = []
        self.trials = 0

    def take(self, machine: Machine) -> None:
        """Kill the parent of a machine and note what stays."""
        took, left = machine.kill()
        self.trials += 1
        self.slowest_s = max(self.slowest_s, took)
        self.left += left
        self.ports += taken(machine.ports)


def serving(tally: Tally, folder: Path, state: Path, processes: int, models: Sequence[str]) -> None:
    """Kill the parent of a machine that serves, with stopped processes below it; then have it serve again."""
    ports = free_ports()
    machine = Machine(folder, state, ports, processes)
    machine.gateway.wait_ready(READY_S)
    for model in models:
        machine.predict(model)
    stop_some(machine)
    tally.take(machine)
    again = Machine(folder, state, ports, processes)
    with ended(again):
        again.gateway.wait_ready(READY_S)
        for model in models:
            again.predict(model)


def loading(tally: Tally, folder: Path, state: Path, processes: int, after_s: float) -> None:
    """Kill the parent of a machine so long after its start."""
    machine = Machine(folder, state, free_ports(), processes)
    threading.Event().wait(after_s)
    tally.take(machine)


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Kill parents that serve, then parents that load."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "models")
        models = write(folder, jvm=True)
        for processes in (1, 2):
            serving(tally, folder, Path(temporary, f"state-{processes}"), processes, models)
            print(f"  {processes} processes, serving: gone after {tally.slowest_s:.2f} s at most", flush=True)
        for number in range(arguments.loading):
            after_s = campaign.random.uniform(0.2, 12.0)
            # Every second machine has compiled nothing yet.
            state = Path(temporary, "state-1" if number % 2 else f"fresh-{number}")
            loading(tally, folder, state, 1 + number // 2 % 2, after_s)
            print(f"  killed {after_s:.1f} s after the start; left {tally.left}", flush=True)
        again = Machine(folder, Path(temporary, "state-1"), free_ports(), 1)
        with ended(again):
            again.gateway.wait_ready(READY_S)
            campaign.equal("statuses after all kills", {again.predict(model) for model in models}, {200})
    campaign.at_least("parents killed", tally.trials, arguments.loading + 2)
    campaign.at_most("slowest end of all that was below a parent, seconds", tally.slowest_s, GONE_S)
    campaign.equal("processes left after 5 s", tally.left, [])
    campaign.equal("ports taken after that", tally.ports, [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loading", type=int, default=20, help="parents to kill while they load")
    run("parent-kills", check, parser)
