"""What the live gateways, all together, have told about snapshots and versions. Pure questions over their reports."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from turnout.core.report import GatewayReport, VersionState

_WORST_FIRST: Final = (VersionState.FAILED, VersionState.LOST, VersionState.LOADING, VersionState.READY)


class Gateway(msgspec.Struct, frozen=True):
    """A gateway machine: its latest report and when it came, on the monotonic clock."""

    report: GatewayReport
    seen_s: float


class LiveGateways:
    """Gateways of one registry that reported lately. Nothing is ready, and nothing has taken effect, without any.

    `since`: version -> the generation from which on it has been held. What a gateway says of a version counts only
    while it is held, and once the gateway is at least that far: a report from before an unload is not taken for the
    load after it.
    """

    def __init__(
        self, gateways: Iterable[Gateway], registry_id: str, now_s: float, live_s: float, since: Mapping[str, int]
    ) -> None:
        self._reports = [
            gateway.report
            for gateway in gateways
            if now_s - gateway.seen_s < live_s and gateway.report.registry_id == registry_id
        ]
        self._since = since

    def __len__(self) -> int:
        """How many there are."""
        return len(self._reports)

    def is_ready(self, version: str) -> bool:
        """Tell whether every one has the version ready."""
        return bool(self._reports) and all(
            self._state(report, version) is VersionState.READY for report in self._reports
        )

    def is_tried(self, version: str) -> bool:
        """Tell whether every one has tried to load the version."""
        return bool(self._reports) and all(
            (state := self._state(report, version)) is not None and state.tried for report in self._reports
        )

    def failure(self, version: str) -> str | None:
        """Return why some gateway cannot serve the version, or None."""
        for report in self._reports:
            if self._state(report, version) is VersionState.FAILED:
                where = f" on gateway {report.gateway}" if len(self._reports) > 1 else ""
                return f"{version} cannot be served{where}: {report.versions[version].reason}"
        return None

    def worst(self, version: str) -> VersionState | None:
        """Return the version's state where it is least well; None where a gateway, or every one, is silent on it."""
        states = [self._state(report, version) for report in self._reports]
        if not states or None in states:
            return None
        return next(state for state in _WORST_FIRST if state in states)

    def waiting_for(self, versions: Iterable[str]) -> list[str]:
        """Return those versions that are not ready everywhere."""
        return [version for version in versions if not self.is_ready(version)]

    def obey(self, generation: int) -> bool:
        """Tell whether every one obeys a snapshot at least as new as `generation`; true where there is none."""
        return all(report.generation >= generation for report in self._reports)

    def _state(self, report: GatewayReport, version: str) -> VersionState | None:
        since = self._since.get(version)
        if since is None or max(report.held, report.generation) < since:
            return None
        found = report.versions.get(version)
        return found.state if found else None
