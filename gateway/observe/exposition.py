"""One exposition for Prometheus, whatever the number of processes: the slots' files merged, and the statistics RPC.

Series of versions and routes that left the snapshot are left out; the numbers stay in the files, so that a version
that comes back goes on counting. Needs prometheus-client and nothing of the serving path: the parent renders.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(directory: Path, live: frozenset[str], routes: frozenset[str]) -> bytes:
    """Return the text exposition of all slots under `directory`.

    `live` are the versions of the snapshot as `model@number`, `routes` its routes.
    """
    families = sorted(merged(directory), key=lambda family: family.name)
    for family in families:
        family.samples = [sample for sample in family.samples if _is_live(sample.labels, live, routes)]
    registry = CollectorRegistry()
    registry.register(_Families(family for family in families if family.samples))
    return generate_latest(registry)


def merged(directory: Path, kinds: str = "*") -> list[Metric]:
    """Return the families that all slots wrote, summed; `kinds` is a pattern of file stems."""
    files = sorted(str(path) for path in directory.glob(f"{kinds}_*.db"))
    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]  # it carries no types


def _is_live(labels: Mapping[str, str], live: frozenset[str], routes: frozenset[str]) -> bool:
    """Tell whether all that the labels name is in the snapshot; empty labels are those of unknown routes."""
    if labels.get("route") and labels["route"] not in routes:
        return False
    version = labels.get("from_version") or labels.get("version")
    if not version:
        return True
    model = labels.get("model")
    return (f"{model}@{version}" if model else version) in live


class _Families(Collector):
    """Hands ready families to prometheus-client's writer."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
