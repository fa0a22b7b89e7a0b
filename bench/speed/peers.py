"""Other model servers on the bench: each in an environment of its own, set up as in `bench/peers/NAME`.

All serve the same ONNX file on ONNX Runtime with one thread, with debug and payload logs off. The environments lie in
build/peers and are made anew when the pinned requirements change.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from bench.campaign.harness import ROOT
from bench.speed.requests import Requests, Values, mismatch
from bench.speed.servers import Server, free_port, process
from bench.speed.wire import Answer, ask_http, post

SOURCES: Final = ROOT / "bench" / "peers"
ENVIRONMENTS: Final = ROOT / "build" / "peers"
_MADE: Final = ".made"
_INSTALLED_WITHIN_S: Final = 900
_ANSWERS_WITHIN_S: Final = 120.0
_LOOK_S: Final = 0.3
_OIP_PATH: Final = "/v2/models/cancer/infer"
_NATIVE_PATH: Final = "/predict"


class Ports(msgspec.Struct, frozen=True):
    """Free ports for one peer."""

    http: int
    grpc: int
    metrics: int


class Peer(msgspec.Struct, frozen=True):
    """How a peer is started, and how it is asked: `native` ones speak nested lists in a JSON of their own."""

    name: str
    package: str
    folder: str
    command: Callable[[Path, Ports], list[str]]
    settings: Callable[[Ports], dict[str, str]]
    native: bool = False
    grpc: bool = False

    @property
    def path(self) -> str:
        """Where its HTTP door takes predictions."""
        return _NATIVE_PATH if self.native else _OIP_PATH


def _no_settings(_ports: Ports) -> dict[str, str]:
    return {}


def _mlserver(ports: Ports) -> dict[str, str]:
    settings = {"HTTP_PORT": ports.http, "GRPC_PORT": ports.grpc, "METRICS_PORT": ports.metrics}
    return {f"MLSERVER_{name}": str(port) for name, port in settings.items()}


def _kserve(*more: str) -> Callable[[Path, Ports], list[str]]:
    return lambda programs, ports: [
        *(str(programs / "python"), "server.py", "--http_port", str(ports.http), "--grpc_port", str(ports.grpc)),
        *more,
    ]


MLSERVER: Final = Peer(
    "MLServer",
    "mlserver",
    "mlserver",
    lambda programs, _: [str(programs / "mlserver"), "start", "."],
    _mlserver,
    grpc=True,
)
KSERVE: Final = Peer("KServe", "kserve", "kserve", _kserve(), _no_settings, grpc=True)
KSERVE_SILENT: Final = Peer(
    "KServe, latency log off", "kserve", "kserve", _kserve("--enable_latency_logging", "false"), _no_settings, grpc=True
)
BENTOML: Final = Peer(
    "BentoML",
    "bentoml",
    "bentoml",
    lambda programs, ports: [
        *(str(programs / "bentoml"), "serve", "service:Cancer", "--host", "127.0.0.1", "--port", str(ports.http))
    ],
    lambda _: {"BENTOML_DO_NOT_TRACK": "true"},
    native=True,
)
LITSERVE: Final = Peer(
    "LitServe",
    "litserve",
    "litserve",
    lambda programs, ports: [str(programs / "python"), "server.py", str(ports.http)],
    _no_settings,
    native=True,
)
PEERS: Final = (MLSERVER, KSERVE, KSERVE_SILENT, BENTOML, LITSERVE)


@contextlib.contextmanager
def running(peer: Peer, model: Path, folder: Path, first: Requests) -> Iterator[Server]:
    """Run a peer over the model's file until the block ends; it has answered `first` rightly by then.

    Raises RuntimeError with the end of its log when it does not.
    """
    programs = environment(peer) / "bin"
    ports = Ports(free_port(), free_port(), free_port())
    log = folder / f"{peer.name}.log"
    settings = {"BENCH_MODEL": str(model), "PATH": f"{programs}:{os.environ['PATH']}", **peer.settings(ports)}
    with process(peer.command(programs, ports), settings, log, cwd=SOURCES / peer.folder) as started:
        server = Server(peer.name, started.pid, f"127.0.0.1:{ports.http}", f"127.0.0.1:{ports.grpc}")
        _wait_right(peer, started, server, first, log)
        yield server


def environment(peer: Peer) -> Path:
    """Return the peer's environment, made if need be. Raises RuntimeError when it cannot be."""
    place, pinned = ENVIRONMENTS / peer.folder, SOURCES / peer.folder / "requirements.txt"
    made, wanted = place / _MADE, hashlib.sha256(pinned.read_bytes()).hexdigest()
    if made.exists() and made.read_text() == wanted:
        return place
    print(f"  installing {peer.package} into {place.relative_to(ROOT)}", flush=True)
    uv = Path(sys.executable).with_name("uv")
    _install([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(place)])
    python = str(place / "bin" / "python")
    _install([str(uv), "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(pinned)])
    made.write_text(wanted)
    return place


def version(peer: Peer) -> str:
    """Return the version that runs."""
    ask = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    python = ENVIRONMENTS / peer.folder / "bin" / "python"
    return subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def native_rows(batches: Sequence[npt.NDArray[np.float32]], expected: list[Values]) -> Requests:
    """Return batches of rows as nested lists under `x`."""
    bodies = [msgspec.json.encode({"x": batch.tolist()}) for batch in batches]
    return Requests(bodies, {"content-type": "application/json"}, expected, read_native)


def read_native(answer: Answer) -> Values:
    """Read an answer of nested lists."""
    said: dict[str, Any] = msgspec.json.decode(answer.body)
    return {"label": np.array(said["label"]), "probabilities": np.array(said["probabilities"], np.float32)}


def _wait_right(peer: Peer, started: "subprocess.Popen[bytes]", server: Server, first: Requests, log: Path) -> None:
    request = post(server.http, peer.path, first.bodies[0], first.headers)
    until_s = time.monotonic() + _ANSWERS_WITHIN_S
    why: str | None = "it was not asked"
    while why is not None:
        try:
            why = mismatch(ask_http(server.http, request), first, 0)
        except (OSError, ValueError, KeyError) as error:
            why = repr(error)
        if started.poll() is not None or time.monotonic() > until_s:
            said = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{peer.name} does not answer (exit {started.poll()}): {why}; its log ends: {said}")
        if why is not None:
            time.sleep(_LOOK_S)


def _install(command: Sequence[str]) -> None:
    settings: Mapping[str, str] = {**os.environ, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, check=False, timeout=_INSTALLED_WITHIN_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
