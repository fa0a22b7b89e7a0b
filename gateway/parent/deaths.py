"""What the death of a gateway process tells of the versions that it was loading or running. It starts and ends nothing.

Whoever kills a process from outside says nothing of its versions: only an end of its own counts, and a loop that hung.
"""

import logging
import signal
from collections.abc import Callable, Mapping
from typing import Final

from gateway.parent.quarantine import Suspects
from turnout.core import clock

_log = logging.getLogger(__name__)

_FROM_OUTSIDE: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


class Deaths:
    """Judges deaths. `ran` returns, and forgets, the versions whose calls were under way in a process that is gone."""

    def __init__(self, suspects: Suspects, ran: Callable[[int], list[str]]) -> None:
        self._suspects = suspects
        self._ran = ran

    def judge(
        self, pid: int, status: int, loading: Mapping[str, str], digests: Mapping[str, str], *, hung: bool
    ) -> dict[str, str]:
        """Draw the conclusions, log them, and return what calls of a version have now cost it: version to reason.

        `loading`: what the process was loading; `digests`: what is held.
        """
        ran = self._ran(pid)
        if not status:
            return {}
        self._loading_died(loading)
        if status in _FROM_OUTSIDE and not hung:
            return {}
        running = {version: digests[version] for version in ran if version in digests}
        if running:
            _log.error("gateway process %d ended while it ran %s", pid, ", ".join(sorted(running)))
        quarantined = self._suspects.crashed(running, clock.monotonic_s())
        return self._told(quarantined, digests)

    def _loading_died(self, loading: Mapping[str, str]) -> None:
        quarantined = self._suspects.died(loading)
        if len(loading) > 1:
            _log.error(
                "%s: one of them ended the process; they load one by one from now on", ", ".join(sorted(loading))
            )
        self._told(quarantined, loading)

    def _told(self, quarantined: list[str], digests: Mapping[str, str]) -> dict[str, str]:
        reasons = {
            version: reason for version, reason in self._suspects.refused(digests).items() if version in quarantined
        }
        for version, reason in reasons.items():
            _log.error("%s: %s", version, reason)
        return reasons
