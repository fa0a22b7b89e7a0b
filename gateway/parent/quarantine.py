"""The quarantine rules: which versions are taken out because processes keep dying of them. Pure: no clock, no I/O.

A version in a worker: in flight at three losses of its worker within a minute. A version in a gateway process: the
process died three times while loading it, or three times within a minute while it ran alone.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

LOSSES: Final = 3
WITHIN_S: Final = 60.0
DEATHS_LOADING: Final = 3
# Several processes report one loss; a worker cannot be restarted and lost again this soon.
_ONE_LOSS_S: Final = 0.5


def reason(why: str) -> str:
    """Return what operators read of a quarantined version: why, and what lifts it."""
    return f"quarantined: {why}; load it again, or start Turnout again, to retry"


class Losses:
    """Counts, by version, losses of a worker with calls in flight."""

    def __init__(self) -> None:
        self._at_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOSSES))

    def count(self, version: str, now_s: float) -> bool:
        """Note a loss that a process reports, or was; tell, once, that the version is to be quarantined."""
        at_s = self._at_s[version]
        if at_s and now_s - at_s[-1] < _ONE_LOSS_S:
            return False
        at_s.append(now_s)
        return len(at_s) == LOSSES and now_s - at_s[0] <= WITHIN_S

    def forget(self, version: str) -> None:
        """Start again: the version is no longer held."""
        self._at_s.pop(version, None)


class _Suspect(msgspec.Struct):
    """A version, by the digest of its bytes, that processes were loading, or running, when they died."""

    digest: str
    deaths: int = 0
    refused: bool = False
    at: str = "loading"


class Suspects:
    """Counts, by version, deaths of gateway processes that were loading it; maps are version -> digest.

    One that was loading beside others is only suspected: suspects load alone from then on, so that the guilty one
    shows and no innocent one is quarantined. Only a death while it loaded alone quarantines.
    """

    def __init__(self) -> None:
        self._suspects: dict[str, _Suspect] = {}
        self._crashes = Losses()

    def __len__(self) -> int:
        """How many versions are suspected or quarantined."""
        return len(self._suspects)

    def died(self, loading: Mapping[str, str]) -> list[str]:
        """Note the death of a process that was loading these; return the versions that are quarantined for it."""
        for version, digest in loading.items():
            known = self._suspects.get(version)
            if known is None or known.digest != digest:
                known = self._suspects[version] = _Suspect(digest)
            known.deaths += 1
        if len(loading) != 1:
            return []
        (version,) = loading
        suspect = self._suspects[version]
        if suspect.refused or suspect.deaths < DEATHS_LOADING:
            return []
        suspect.refused = True
        return [version]

    def crashed(self, running: Mapping[str, str], now_s: float) -> list[str]:
        """Note the death of a process in which calls of these were under way; return what is quarantined for it.

        As with loads, only a death at which it was the only one is proof.
        """
        many = [version for version in running if self._crashes.count(version, now_s)]
        if len(running) != 1:
            return []
        for version in many:
            self._crashes.forget(version)
            self._suspects[version] = _Suspect(running[version], LOSSES, refused=True, at="running")
        return many

    def survived(self, versions: Collection[str]) -> None:
        """Forget versions whose load a process has outlived, well or badly."""
        for version in versions:
            suspect = self._suspects.get(version)
            if suspect is not None and not suspect.refused:
                del self._suspects[version]

    def pardon(self, model: str) -> bool:
        """Let quarantined versions of a model be loaded again, alone; one more death is enough to take it back.

        Tell whether there are any.
        """
        pardoned = False
        for version, suspect in self._suspects.items():
            if suspect.refused and version.rpartition("@")[0] == model:
                suspect.refused = False
                pardoned = True
        return pardoned

    def keep(self, held: Mapping[str, str]) -> None:
        """Forget versions that are no longer held, or came back with other bytes."""
        self._suspects = {
            version: suspect for version, suspect in self._suspects.items() if held.get(version) == suspect.digest
        }

    def refused(self, held: Mapping[str, str]) -> dict[str, str]:
        """Return the quarantined ones among `held`, with the reason that operators see."""
        return {
            version: reason(f"the process died {suspect.deaths} times while {suspect.at} it")
            for version, suspect in self._suspects.items()
            if suspect.refused and held.get(version) == suspect.digest
        }

    def alone(self, held: Mapping[str, str]) -> list[str]:
        """Return those among `held` that are to be loaded one by one."""
        return [
            version
            for version, suspect in self._suspects.items()
            if not suspect.refused and held.get(version) == suspect.digest
        ]
