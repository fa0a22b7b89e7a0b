"""Runs the training programs, each in a process of its own, keeping what they wrote under a digest of their inputs."""

import asyncio
import hashlib
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from models.flight_delay import data, processes, steps

HERE: Final = Path(__file__).parent
SHARED: Final = ("data.py", "features.py", "golden.py", "manifests.py", "steps.py")


class Program(NamedTuple):
    """A training program: its module, the versions it writes, its own sources and the libraries it depends on."""

    name: str
    module: str
    versions: tuple[int, ...]
    sources: tuple[str, ...]
    libraries: tuple[str, ...]


SCIKIT: Final = Program(
    "scikit-learn",
    "models.flight_delay.train_scikit",
    (1, 2),
    ("train_scikit.py", "export_onnx.py"),
    ("numpy", "pandas", "scikit-learn", "skops", "skl2onnx", "onnx"),
)
SPARK: Final = Program(
    "spark", "models.flight_delay.train_spark", (3,), ("train_spark.py",), ("numpy", "pandas", "pyspark")
)


class TrainingFailed(Exception):
    """A training program did not end well; the text names it and quotes its last words."""


def key(program: Program, data_digest: str) -> str:
    """Return the digest of all that a program's result depends on: sources, data, libraries, Python."""
    total = hashlib.sha256(data_digest.encode())
    for name in (*SHARED, *program.sources):
        total.update((HERE / name).read_bytes())
    total.update(platform.python_version().encode())
    for library in program.libraries:
        total.update(f"{library}=={version(library)}\n".encode())
    return total.hexdigest()


async def ensure(
    programs: Sequence[Program],
    cache: Path,
    environment: Mapping[str, str],
    told: Callable[[Program, steps.Step], None],
) -> dict[str, Path]:
    """Return each program's result folder by its name, running side by side those whose result is not there yet.

    `told` hears of every step. Raises TrainingFailed.
    """
    data_digest = data.digest()
    folders = {program.name: cache / f"{program.name}-{key(program, data_digest)[:16]}" for program in programs}
    due = [program for program in programs if not folders[program.name].is_dir()]
    cache.mkdir(parents=True, exist_ok=True)
    tasks = [asyncio.create_task(_train(program, folders[program.name], environment, told)) for program in due]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return folders


async def _train(
    program: Program, folder: Path, environment: Mapping[str, str], told: Callable[[Program, steps.Step], None]
) -> None:
    """Run one program into a folder beside the final one, which appears whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    log = folder.with_name(f"{program.name}.log")
    command = ("-W", "ignore", "-m", program.module, str(partial))
    async with processes.running(command, log=log, environment=environment, leave_s=5) as process:
        async for line in processes.lines(process):
            step = steps.read(line)
            if step:
                told(program, step)
        status = await process.wait()
    if status:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingFailed(
            f"training with {program.name} ended with status {status}; the end of {log}:\n{processes.tail(log)}"
        )
    partial.rename(folder)
