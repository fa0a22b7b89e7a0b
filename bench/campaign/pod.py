"""Reads k8s/base/deployment.yaml and runs its pod by hand: the same commands, users, volumes, limits and probes.

Volumes become folders of the machine; what a cluster would write into them (models, routes) is written here. Knows
nothing of what the pod serves.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from bench.campaign.harness import ROOT

DEPLOYMENT: Final = ROOT / "k8s" / "base" / "deployment.yaml"
_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def spec() -> dict[str, Any]:
    """Return the pod's specification."""
    found: dict[str, Any] = yaml.safe_load(DEPLOYMENT.read_text())["spec"]["template"]["spec"]
    return found


def size_bytes(quantity: str) -> int:
    """Return a memory quantity of Kubernetes in bytes."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


class Engine:
    """A container engine's command (podman or docker), and flags that this machine needs for `run`."""

    def __init__(self, command: str, run_flags: str) -> None:
        self.command = shlex.split(command)
        self.run_flags = shlex.split(run_flags)

    def call(self, *arguments: str, within_s: float = 120) -> str:
        """Run a command of the engine and return what it says. Raises RuntimeError with its words."""
        done = subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, timeout=within_s, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join([*self.command, *arguments])}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        found: dict[str, Any] = json.loads(self.call("inspect", container))[0]
        return found


class Pod:
    """The Deployment's pod with one image, on folders below `folder`."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self._engine = engine
        self._image = image
        self._spec = spec()
        self._user = "{runAsUser}:{runAsGroup}".format(**self._spec["securityContext"])
        self.name = f"turnout-check-{os.getpid()}-{folder.name}"
        self.folders = {volume["name"]: folder / volume["name"] for volume in self._spec["volumes"]}
        self.gateway = self._spec["containers"][0]
        for volume in self._spec["volumes"]:
            path = self.folders[volume["name"]]
            path.mkdir(parents=True)
            if "emptyDir" in volume:
                uid, _, gid = self._user.partition(":")
                os.chown(path, int(uid), int(gid))

    def deliver(self, models: Path) -> None:
        """Put a folder of models on the volume that the cluster would fill."""
        shutil.copytree(models, self.folders["delivered"], dirs_exist_ok=True)

    def configure(self, routes: str) -> None:
        """Write the ConfigMap's volume as the kubelet does: a new folder, and one link swapped over to it."""
        volume = self.folders["routes"]
        fresh = volume / f"..{len(list(volume.iterdir()))}_data"
        fresh.mkdir()
        (fresh / "routes.yaml").write_text(routes)
        (volume / "..data_tmp").symlink_to(fresh.name)
        (volume / "..data_tmp").rename(volume / "..data")
        if not (volume / "routes.yaml").is_symlink():
            (volume / "routes.yaml").symlink_to("..data/routes.yaml")

    def start(self) -> None:
        """Run the init containers, then the gateway. Raises RuntimeError."""
        for container in self._spec["initContainers"]:
            self._engine.call("run", "--rm", *self._flags(container), *self._command(container))
        ports = [flag for port in self.gateway["ports"] for flag in ("-p", f"127.0.0.1::{port['containerPort']}")]
        self._engine.call(
            "run", "--detach", "--name", self.name, *ports, *self._flags(self.gateway), *self._command(self.gateway)
        )

    def address(self, port: str) -> str:
        """Return where a named port of the gateway is published."""
        number = next(entry["containerPort"] for entry in self.gateway["ports"] if entry["name"] == port)
        return self._engine.call("port", self.name, f"{number}/tcp").splitlines()[0]

    def probe(self, kind: str) -> tuple[str, str]:
        """Return port name and path of the `startup`, `liveness` or `readiness` probe."""
        asks = self.gateway[f"{kind}Probe"]["httpGet"]
        return asks["port"], asks["path"]

    def stop(self) -> int:
        """End it as the kubelet does, within the grace period, and return its exit status."""
        grace_s = self._spec["terminationGracePeriodSeconds"]
        self._engine.call("stop", "--time", str(grace_s), self.name, within_s=grace_s + 60)
        return int(self._engine.inspect(self.name)["State"]["ExitCode"])

    def remove(self) -> None:
        """Remove the container, whatever its state."""
        self._engine.call("rm", "--force", self.name)

    def logs(self) -> str:
        """Return the end of the gateway's output."""
        done = subprocess.run(
            [*self._engine.command, "logs", "--tail", "40", self.name], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def _flags(self, container: Mapping[str, Any]) -> Sequence[str]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        flags = [*self._engine.run_flags, "--read-only", "--user", self._user]
        flags += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        limits = container["resources"]["limits"]
        flags += ["--memory", str(size_bytes(limits["memory"]))]
        if "cpu" in limits:
            flags += ["--cpus", limits["cpu"]]
        for variable in container.get("env", ()):
            flags += ["--env", f"{variable['name']}={variable['value']}"]
        for mount in container["volumeMounts"]:
            kind = "ro" if mount.get("readOnly") else "rw"
            flags += ["--volume", f"{self.folders[mount['name']]}:{mount['mountPath']}:{kind}"]
        return [*flags, "--entrypoint", json.dumps(container["command"])]

    def _command(self, container: Mapping[str, Any]) -> Sequence[str]:
        return [self._image, *container["args"]]
