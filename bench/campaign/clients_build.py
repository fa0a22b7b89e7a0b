"""Compiles Triton's C++ and Java client examples as they are, with the machine's own compilers and libraries.

What cannot be built is returned with the reason. Nothing is written into the checkouts.
"""

import importlib.util
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

LIBRARY: Final = ("common", "cencode", "json_utils", "http_client", "grpc_client")
PROTOS: Final = ("grpc_service", "model_config")
EXAMPLES: Final = (
    "ensemble_image_client",
    *(f"simple_{door}_{kind}" for door in ("http", "grpc") for kind in ("infer_client", "async_infer_client")),
    *(f"simple_{door}_{kind}" for door in ("http", "grpc") for kind in ("string_infer_client", "health_metadata")),
    *(f"simple_{door}_model_control" for door in ("http", "grpc")),
    "simple_grpc_keepalive_client",
    "simple_grpc_custom_args_client",
)
JARS: Final = ("/usr/share/java/httpasyncclient.jar", "/usr/share/java/httpcore-nio.jar")


class Built(msgspec.Struct, frozen=True):
    """How to start what was compiled, or why it was not."""

    command: tuple[str, ...]
    reason: str = ""


def build(triton: Path, common: Path | None, folder: Path) -> dict[str, Built]:
    """Compile into `folder`; C++ examples by name, all Java ones under `java`."""
    folder.mkdir()
    built = {"image_client": Built((), "not built: needs OpenCV, and an image layout that versions do not declare")}
    if common is None:
        return (
            built
            | dict.fromkeys(EXAMPLES, Built((), "not built: needs --triton-common"))
            | {"java": _java(triton, folder)}
        )
    print("compiling the C++ and Java examples", flush=True)
    return built | _cpp(triton, common, folder) | {"java": _java(triton, folder)}


def _cpp(triton: Path, common: Path, folder: Path) -> dict[str, Built]:
    missing = [program for program in ("g++", "protoc", "grpc_cpp_plugin", "pkg-config") if not shutil.which(program)]
    if missing:
        return dict.fromkeys(EXAMPLES, Built((), f"not built: needs {', '.join(missing)}"))
    protobuf = common / "protobuf"
    files = [str(protobuf / f"{name}.proto") for name in PROTOS]
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    said = _run("protoc", f"-I{protobuf}", f"--cpp_out={folder}", f"--grpc_out={folder}", plugin, *files)
    library = triton / "src/c++/library"
    # Optimised as in their own build: unoptimised, their HTTP library's async client overwrites its own stack.
    flags = [
        "-std=c++17",
        "-O2",
        "-w",
        f"-I{folder}",
        f"-I{library}",
        f"-I{common / 'include'}",
        "-DTRITON_ENABLE_ZLIB",
    ]
    sources = [*(library / f"{name}.cc" for name in LIBRARY), *folder.glob("*.pb.cc")]
    objects = [str(folder / f"{source.name}.o") for source in sources]
    with ThreadPoolExecutor(2) as two:
        compiled = two.map(
            lambda pair: _run("g++", *flags, "-c", str(pair[0]), "-o", pair[1]), zip(sources, objects, strict=True)
        )
        said += "".join(compiled)
        if said:
            return dict.fromkeys(EXAMPLES, Built((), f"not built: {said[-200:]}"))
        libraries = _output("pkg-config", "--libs", "grpc++", "protobuf").split()
        linked = [*objects, *libraries, "-lcurl", "-lz", "-lpthread"]
        sources_of = {name: triton / "src/c++/examples" / f"{name}.cc" for name in EXAMPLES}
        made = two.map(
            lambda name: _run("g++", *flags, str(sources_of[name]), *linked, "-o", str(folder / name)), EXAMPLES
        )
        return {
            name: Built((), f"not built: {wrong[-200:]}") if wrong else Built((str(folder / name),))
            for name, wrong in zip(EXAMPLES, made, strict=True)
        }


def _java(triton: Path, folder: Path) -> Built:
    spark = importlib.util.find_spec("pyspark")
    missing = [jar for jar in JARS if not Path(jar).exists()]
    if spark is None or spark.origin is None or missing or not shutil.which("javac"):
        return Built((), "not built: needs javac, pyspark's jars and libhttpasyncclient-java")
    path = ":".join((str(folder / "java"), f"{Path(spark.origin).parent / 'jars'}/*", *JARS))
    sources = [str(source) for source in (triton / "src/java/src/main/java").rglob("*.java")]
    wrong = _run("javac", "-nowarn", "-d", str(folder / "java"), "-cp", path, *sources)
    return Built((), f"not built: {wrong[-200:]}") if wrong else Built(("java", "-cp", path))


def _run(*command: str) -> str:
    """Run a compiler; return what it complained of, nothing when it succeeded."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout or f"exit {done.returncode}").strip()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
