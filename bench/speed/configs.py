"""The two committed configurations, `bench/configs/NAME`: how the gateway is set up, and what its callers send.

`turnout.yaml` is handed to the gateway; `model.yaml` joins what each version declares; `route.yaml` is every model's
entry in routes.yaml; `client.yaml` says which headers requests carry and how often /metrics is read.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from bench.campaign.harness import ROOT

CONFIGS: Final = ROOT / "bench" / "configs"
ON: Final = "all-features-on"
OFF: Final = "features-off"


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What callers do: headers of every request, and the seconds between two reads of /metrics; 0 for none."""

    headers: dict[str, str]
    scrape_s: float


def client(name: str) -> Client:
    """Return what callers do under a configuration."""
    return msgspec.convert(_read(name, "client.yaml"), Client)


def lay_out(name: str, models: Path, folder: Path) -> Path:
    """Copy each of `models` as the versions that the configuration's route names; return the gateway's settings file.

    `folder` gets `models` with its routes.yaml, and turnout.yaml.
    """
    route, extra = _read(name, "route.yaml"), _read(name, "model.yaml")
    for model in sorted(path for path in models.iterdir() if path.is_dir()):
        for number in sorted(_numbers(route)):
            version = folder / "models" / model.name / str(number)
            shutil.copytree(model, version)
            _join(version / "model.yaml", extra)
    names = [path.name for path in (folder / "models").iterdir()]
    (folder / "models" / "routes.yaml").write_text(json.dumps({"routes": dict.fromkeys(names, route)}))
    return Path(shutil.copy(CONFIGS / name / "turnout.yaml", folder))


def _numbers(route: dict[str, Any]) -> set[int]:
    shadows = {shadow["version"] for shadow in route.get("shadows", ())}
    return {route["champion"], *route.get("weights", {}), *shadows}


def _join(manifest: Path, extra: dict[str, Any]) -> None:
    declared = yaml.safe_load(manifest.read_text()) if manifest.exists() else {}
    if declared or extra:
        manifest.write_text(json.dumps({**declared, **extra}))


def _read(name: str, file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIGS / name / file).read_text())
    return found
