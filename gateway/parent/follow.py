"""Follows control's snapshots by long poll, and refuses those that cannot be the next ones.

A gateway stays with one registry and never goes back a generation, until an operator says `turnout gateway adopt`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from gateway.parent.control_client import ControlClient, ControlUnreachable, Offer
from turnout.core.snapshot import Snapshot, digest

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_ADOPT: Final = "run `turnout gateway adopt` to follow it"


class Position(msgspec.Struct, frozen=True):
    """Where a gateway stands: the registry it follows, and the newest snapshot it took from there."""

    registry_id: str
    generation: int
    digest: str

    @classmethod
    def of(cls, snapshot: Snapshot, data: bytes) -> "Position":
        """Return the position after taking a snapshot."""
        return cls(snapshot.registry_id, snapshot.generation, digest(data))


def refusal(position: Position | None, offered: Position) -> str:
    """Say why a gateway at `position` may not follow `offered`; empty when it may."""
    if position is None:
        return ""
    if offered.registry_id != position.registry_id:
        return f"control is registry {offered.registry_id}, this gateway follows {position.registry_id}; {_ADOPT}"
    if offered.generation < position.generation:
        return f"control is at generation {offered.generation}, this gateway at {position.generation}; {_ADOPT}"
    if offered.generation == position.generation and offered.digest != position.digest:
        return f"control has another generation {offered.generation} than this gateway; {_ADOPT}"
    return ""


class Follow:
    """The long poll. `take` gets each snapshot that may follow; `on_refused` hears why one does not.

    `take` tells whether all of it is here now. What is not is asked for again with every poll that brings nothing new.

    `answered` and `failed` are set by control's first answer and first failure, `taken` by the first snapshot that
    is not refused.
    """

    def __init__(
        self,
        control: ControlClient,
        adopt: Path,
        take: Callable[[Offer], Awaitable[bool]],
        on_refused: Callable[[str], None],
    ) -> None:
        self.position: Position | None = None
        self.taken = False
        self._whole = True
        self.answered = asyncio.Event()
        self.failed = asyncio.Event()
        self._control = control
        self._adopt = adopt
        self._take = take
        self._on_refused = on_refused
        self._refused = ""
        self._unreachable = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        after, pause_s = 0, _FIRST_PAUSE_S
        while True:
            try:
                offer = await self._control.snapshot(after)
            except ControlUnreachable as error:
                self._say_unreachable(str(error))
                # Whoever answers next may be another control: ask for what it has, whatever its generation.
                after = 0
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            self._say_unreachable("")
            pause_s = _FIRST_PAUSE_S
            if offer is None:
                if not self._whole or await self._is_to_adopt():
                    after = 0
                continue
            if await self._consider(offer):
                after = offer.snapshot.generation
            else:
                after = 0
                await asyncio.sleep(_LONGEST_PAUSE_S)

    async def _consider(self, offer: Offer) -> bool:
        offered = Position.of(offer.snapshot, offer.data)
        adopting = await self._is_to_adopt()
        if adopting:
            _log.warning("adopting registry %s at generation %d", offered.registry_id, offered.generation)
            self.position = None
        reason = refusal(self.position, offered)
        if reason != self._refused:
            self._refused = reason
            if reason:
                _log.error("the snapshot is refused: %s", reason)
            self._on_refused(reason)
        self.taken = self.taken or not reason
        self.answered.set()
        if reason:
            return False
        try:
            self._whole = await self._take(offer)
        except OSError as error:
            self._refused = f"generation {offered.generation} cannot be taken: {error}"
            _log.error("%s", self._refused)
            self._on_refused(self._refused)
            return False
        self.position = offered
        if adopting:
            await self._adopted()
        return True

    async def _is_to_adopt(self) -> bool:
        try:
            return await asyncio.to_thread(self._adopt.exists)
        except OSError as error:
            _log.error("whether to adopt cannot be told: %s", error)
            return False

    async def _adopted(self) -> None:
        try:
            await asyncio.to_thread(self._adopt.unlink, missing_ok=True)
        except OSError as error:
            _log.error("remove %s by hand, or the next registry is adopted as well: %s", self._adopt, error)

    def _say_unreachable(self, reason: str) -> None:
        if reason:
            self.failed.set()
        if bool(reason) != bool(self._unreachable):
            if reason:
                _log.warning("control at %s is out of reach: %s", self._control.url, reason)
            else:
                _log.warning("control at %s answers again", self._control.url)
        self._unreachable = reason
