"""Starts the control process alone, as its starter does, and plays the gateways that follow it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec

from tests.waiting import eventually
from turnout.control.config import ControlConfig
from turnout.core.report import GatewayReport, VersionReport, VersionState
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import Snapshot, decode, digest
from turnout.core.tensor import Datatype

SIGNATURE = Signature((TensorSpec("x", Datatype.FP32, (-1,)),), (TensorSpec("y", Datatype.FP32, (-1,)),))
OTHER = Signature((TensorSpec("x", Datatype.FP32, (-1,)),), (TensorSpec("z", Datatype.INT64, (-1,)),))


class ControlProcess:
    """A control process on a port of its own; its log is `log`."""

    def __init__(self, config: ControlConfig) -> None:
        read, write = os.pipe()
        ready, theirs = os.pipe()
        os.write(write, msgspec.json.encode(config))
        os.close(write)
        self.log_path = Path(config.state) / "control.log"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "turnout.control.main", "--config-fd", str(read), "--ready-fd", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(read, theirs),
            )
        os.close(read)
        os.close(theirs)
        with os.fdopen(ready, "rb") as line:
            self.port = json.loads(line.read() or b'{"port": 0}')["port"]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    @property
    def log(self) -> str:
        """Everything on stderr so far, of earlier processes over the same state too."""
        return self.log_path.read_text()

    def snapshot(self, after: int = 0, wait_s: float = 10) -> Snapshot | None:
        """Return the snapshot that is not generation `after`, checked against its digest; None after `wait_s`."""
        answer = self.http.get("/v1/snapshot", params={"after": after, "wait_s": wait_s})
        if answer.status_code == 304:
            return None
        assert answer.status_code == 200, answer.text
        assert answer.headers["turnout-snapshot-digest"] == digest(answer.content)
        return decode(answer.content)

    def routes(self) -> dict:
        """Return all that the API tells of routes."""
        return self.http.get("/v1/routes").json()

    def weights(self, route: str) -> dict[str, int]:
        """Return a published route's weights, empty while it is not there."""
        return weights(self.routes(), route)

    def metric(self, name: str) -> float:
        """Return a sample of /metrics by its name with labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).rpartition(" ")[2])

    def stop(self, how: int | None = None) -> int:
        """End it by the end of its stdin, or a signal; return its exit status."""
        if how is not None:
            self.process.send_signal(how)
        else:
            self.process.stdin.close()
        status = self.process.wait(20)
        assert self.process.stdout.read() == b""
        self._close()
        return status

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self.process.kill()
        self.process.wait(20)
        self._close()

    def _close(self) -> None:
        self.http.close()
        self.process.stdout.close()
        self.process.stdin.close()


class FakeGateway:
    """Follows and reports as a gateway machine does: all is ready at once, but for what a test says."""

    def __init__(self, control: ControlProcess, name: str = "g1") -> None:
        self.control = control
        self.name = name
        self.states: dict[str, VersionReport] = {}
        self.snapshot: Snapshot | None = None
        self.seen: list[Snapshot] = []

    def report(self, versions: dict[str, VersionReport] | None = None, **changes: object) -> httpx.Response:
        """Report on the snapshot that it has."""
        snapshot = self.snapshot
        held = [str(entry.ref) for entry in snapshot.versions] if snapshot else []
        ready = VersionReport(VersionState.READY, signature=SIGNATURE)
        report = GatewayReport(
            gateway=self.name,
            registry_id=snapshot.registry_id if snapshot else "",
            generation=snapshot.generation if snapshot else 0,
            held=snapshot.generation if snapshot else 0,
            versions=versions if versions is not None else {ref: self.states.get(ref, ready) for ref in held},
        )
        report = msgspec.structs.replace(report, **changes)
        return self.control.http.post(f"/v1/gateways/{self.name}/report", content=msgspec.json.encode(report))

    def follow(self, wait_s: float = 0) -> bool:
        """Take the next snapshot if there is one, and report; tell whether there was one."""
        following = self.control.snapshot(self.snapshot.generation if self.snapshot else 0, wait_s)
        if following is not None:
            self.snapshot = following
            self.seen.append(following)
        assert self.report().status_code == 204
        return following is not None

    def settle(self, route: str, wanted: dict[str, int], within_s: float = 10) -> None:
        """Follow until a route has these weights and nothing newer is published."""

        def is_settled() -> bool:
            self.follow()
            assert self.snapshot is not None
            published = self.control.routes()
            return self.snapshot.generation == published["generation"] and weights(published, route) == wanted

        eventually(is_settled, within_s, f"route {route} with {wanted}")


def weights(published: dict, route: str) -> dict[str, int]:
    """Return a route's weights in an answer of `GET /v1/routes`, empty where it is not in it."""
    found = next((known for known in published["routes"] if known["name"] == route), None)
    return {variant["version"]: variant["weight"] for variant in found["variants"]} if found else {}


def write(path: Path, text: str) -> None:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_routes(folder: Path, text: str) -> None:
    """Put a routes.yaml in place by a rename."""
    write(folder / "new.routes", text)
    (folder / "new.routes").rename(folder / "routes.yaml")
