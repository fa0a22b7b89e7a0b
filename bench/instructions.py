"""Counts the instructions of one request through the real doors, against the budget in `bench/results/`.

`python -m bench.instructions` compares, `--write` records a new budget, `--keep DIR` leaves the profiles by C function
for callgrind_annotate. A count hardly depends on the machine's load, but on its CPU family, on Python and on ONNX
Runtime: only where these are the recorded ones is a count held against the recorded count. Elsewhere it is held, more
widely, against the bare handler's count of the same run. The kernel's part is in no count.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench import workload
from bench.campaign.harness import RESULTS, ROOT
from bench.counted import BARE, ROWS_FILE
from bench.speed.models import write_echo, write_sklearn, write_strings

BUDGET: Final = RESULTS / "instructions.json"
ALLOWED: Final = 1.10
# Against the bare handler, on another Python, ONNX Runtime or CPU.
ALLOWED_ELSEWHERE: Final = 1.40
# The difference of two runs of one kind: what is paid once falls out.
FEW: Final = 20
MANY: Final = 100
_AGAIN: Final = 2
_READY_WITHIN_S: Final = 400.0
_DONE_WITHIN_S: Final = 120.0
_TOTALS: Final = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


class Place(msgspec.Struct, frozen=True):
    """What a count depends on."""

    python: str
    onnxruntime: str
    cpu_family: str


class Budget(msgspec.Struct, frozen=True):
    """Instructions of one request, by kind, and where they were counted."""

    place: Place
    valgrind: str
    commit: str
    instructions: dict[str, int]


def here() -> Place:
    """Return what counts depend on, of this machine."""
    cpu: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    family = f"{cpu.get('vendor_id', platform.machine())} {cpu.get('cpu family', '?')}"
    return Place(platform.python_version(), importlib.metadata.version("onnxruntime"), family)


def recorded() -> Budget:
    """Return the committed budget."""
    return msgspec.json.decode(BUDGET.read_bytes(), type=Budget)


def write_models(folder: Path, *, sklearn: bool) -> None:
    """Write what the counted process serves: made here, since training costs much more where it is counted."""
    workload.write_model(folder)
    write_echo(folder / "echo")
    write_strings(folder / "strings")
    np.save(folder / ROWS_FILE, workload.rows())
    if sklearn:
        write_sklearn(folder / "scikit")


class Counter:
    """The counted process under callgrind, which counts nothing until it is told to."""

    def __init__(self, models: Path, profiles: Path, *, sklearn: bool) -> None:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        command += [f"--callgrind-out-file={profiles}/profile", sys.executable, "-m", "bench.counted", str(models)]
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            command + ["--sklearn"] * sklearn,
            cwd=ROOT,
            env={**os.environ, **threads, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._profiles = profiles
        self._dumps = 0

    def kinds(self) -> list[str]:
        """Wait until the process is warm; return the kinds of request that it knows, and begin to count."""
        kinds = self._hear("ready", _READY_WITHIN_S).split("|")
        self._command("instrumentation", "on")
        return kinds

    def instructions(self, kind: str) -> int:
        """Return the instructions of one request. Raises RuntimeError when one is not answered."""
        few, many = self._run(kind, FEW), self._run(kind, MANY)
        return round((many - few) / (MANY - FEW))

    def _run(self, kind: str, count: int) -> int:
        self._command("zero")
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()
        lost = self._hear("done", _DONE_WITHIN_S)
        if lost != "0":
            raise RuntimeError(f"{kind}: {lost} of {count} requests had no good answer")
        self._dumps += 1
        self._command("dump", kind)
        return self._total()

    def _total(self) -> int:
        file = self._profiles / f"profile.{self._dumps}"
        found = _TOTALS.search(file.read_text())
        assert found, file
        return int(found[1])

    def _hear(self, word: str, within_s: float) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], within_s)[0]:
            raise RuntimeError(f"the counted process did not say {word!r} within {within_s:g} s")
        said = stdout.readline().strip()
        if not said.startswith(word):
            raise RuntimeError(f"the counted process said {said!r}, not {word!r}")
        return said.removeprefix(word).strip()

    def _command(self, *words: str) -> None:
        command = ["vgdb", "--wait=10", "--max-invoke-ms=0", f"--pid={self.process.pid}", *words]
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def counting(profiles: Path, *, sklearn: bool) -> Iterator[Counter]:
    """Run the counted process while the block runs."""
    with tempfile.TemporaryDirectory() as models:
        write_models(Path(models), sklearn=sklearn)
        counter = Counter(Path(models), profiles, sklearn=sklearn)
        try:
            yield counter
        finally:
            counter.stop()


def over(counted: dict[str, int], place: Place, budget: Budget) -> dict[str, str]:
    """Return the kinds that cost more than they may, with why; where the place differs, against the bare handler."""
    wrong: dict[str, str] = {}
    known = budget.instructions
    for kind, instructions in counted.items():
        if kind not in known:
            wrong[kind] = "it is in no budget: write one (python -m bench.instructions --write)"
        elif place == budget.place:
            if instructions > ALLOWED * known[kind]:
                wrong[kind] = f"{instructions:,} instructions, {instructions / known[kind]:.2f} of {known[kind]:,}"
        elif (share := (instructions / counted[BARE]) / (known[kind] / known[BARE])) > ALLOWED_ELSEWHERE:
            wrong[kind] = f"{share:.2f} of the recorded ratio to the bare handler"
    return wrong


def count(budget: Budget | None, *, sklearn: bool = False, keep: Path | None = None) -> dict[str, int]:
    """Return the instructions of one request of each kind; what is over the budget is counted again, twice at most.

    The lowest count stands: a thread's turn or the collector's may fall into one run of a kind and not into the other.
    """
    with tempfile.TemporaryDirectory() as temporary:
        profiles = keep or Path(temporary)
        profiles.mkdir(parents=True, exist_ok=True)
        with counting(profiles, sklearn=sklearn) as counter:
            counted = {kind: counter.instructions(kind) for kind in counter.kinds()}
            for _ in range(_AGAIN):
                for kind in over(counted, here(), budget) if budget else ():
                    counted[kind] = min(counted[kind], counter.instructions(kind))
    return counted


def main() -> int:
    """Run as a script; 1 when a kind is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record what is counted as the budget")
    parser.add_argument("--no-sklearn", action="store_true", help="leave out scikit-learn, whose import takes long")
    parser.add_argument("--keep", type=Path, help="keep the profiles in this folder")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    budget = recorded() if BUDGET.exists() else None
    counted = count(budget, sklearn=not arguments.no_sklearn, keep=arguments.keep)
    for kind, instructions in counted.items():
        known = budget.instructions.get(kind) if budget else None
        against = f"{instructions / known:6.3f} of the budget" if known else "no budget"
        print(f"{kind:36} {instructions:>10,}   {instructions / counted[BARE]:6.3f} of bare   {against}")
    print(f"counted in {time.monotonic() - began_s:.0f} s")
    if arguments.write:
        said = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        kept = budget.instructions if budget is not None and arguments.no_sklearn else {}
        budget = Budget(here(), said, commit, {**kept, **counted})
        BUDGET.write_bytes(msgspec.json.format(msgspec.json.encode(budget), indent=2) + b"\n")
        print("recorded; docs/performance.md shows it: python -m bench.speed.page")
        return 0
    if budget is None:
        print("there is no budget yet: --write records one")
        return 1
    if here() != budget.place:
        print(f"this is {here()}, the budget is of {budget.place}: held against the bare handler only")
    wrong = over(counted, here(), budget)
    for kind, why in wrong.items():
        print(f"OVER  {kind}: {why}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
