"""What control knows when it decides what to publish, and the events that change it. Decides nothing."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from turnout.control.publish.compile import Fault
from turnout.control.publish.gateways import Gateway, LiveGateways
from turnout.control.publish.routes_file import DeclaredRoute
from turnout.core.report import GatewayReport
from turnout.core.signature import Signature
from turnout.core.snapshot import Route, Snapshot, VersionEntry


class Times(msgspec.Struct, frozen=True):
    """Waits in seconds, as in `ControlConfig`."""

    gateway_live_s: float = 15.0
    first_routes_s: float = 30.0
    ready_within_s: float = 300.0


class Refusal(msgspec.Struct, frozen=True):
    """Routes that were not taken, as `source:line: reason`."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        """Return the written form."""
        return f"{self.source}:{self.line}: {self.reason}"


class Pending(msgspec.Struct, frozen=True):
    """Explicit routes that are to take effect, the file they come from, and since when they wait."""

    routes: tuple[DeclaredRoute, ...]
    source: str
    since_s: float

    def refusal(self, fault: Fault) -> Refusal:
        """Return the fault with the line that it is about."""
        declared = next((route for route in self.routes if route.name == fault.route), None)
        line = (declared.line_of(fault.version) if fault.version else declared.line) if declared else 1
        return Refusal(self.source, line, str(fault))


class State(msgspec.Struct, frozen=True):
    """Everything that decides what is published.

    `present`: model -> numbers that stand in FOLDER; the highest is the newest. `before` are the routes in force:
    those last published or, while `starting`, those of the run before. A start publishes no routes until its versions
    have been tried; `first_hold_s` is when they were first held. `changed` versions have other bytes in FOLDER now than
    those that were imported. `refused` is why the latest routes file was not taken.
    """

    registry_id: str
    times: Times = Times()
    trusted: bool = False
    generation: int = 0
    snapshot: Snapshot | None = None
    starting: bool = True
    first_hold_s: float | None = None
    before: tuple[Route, ...] = ()
    versions: Mapping[str, VersionEntry] = {}
    present: Mapping[str, tuple[int, ...]] = {}
    unloaded: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    problems: Mapping[str, str] = {}
    since: Mapping[str, int] = {}
    gateways: Mapping[str, Gateway] = {}
    signatures: Mapping[str, Signature] = {}
    pending: Pending | None = None
    refused: Refusal | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is a start without routes of before, which could go on when a file of routes is refused."""
        return self.starting and not self.before

    def live(self, now_s: float) -> LiveGateways:
        """Return the gateways that count at `now_s`."""
        return LiveGateways(self.gateways.values(), self.registry_id, now_s, self.times.gateway_live_s, self.since)

    def newest(self, model: str) -> str | None:
        """Return the newest version of a model that stands in FOLDER."""
        numbers = self.present.get(model)
        return f"{model}@{max(numbers)}" if numbers else None

    def route(self, name: str) -> Route | None:
        """Return the published route of this name."""
        routes = self.snapshot.routes if self.snapshot else ()
        return next((route for route in routes if route.name == name), None)


class Imported(NamedTuple):
    """FOLDER was read: all known versions, what stands there, and problems. `loaded` models serve again.

    `changed` versions have other bytes there than were imported.
    """

    versions: Mapping[str, VersionEntry]
    present: Mapping[str, tuple[int, ...]]
    problems: Mapping[str, str]
    loaded: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()


class Compared(NamedTuple):
    """Versions that a routes file names were compared with FOLDER: these have other bytes there than were imported."""

    changed: frozenset[str]


class Unloaded(NamedTuple):
    """A model's hold and implicit route are to go."""

    model: str


class Declared(NamedTuple):
    """A routes file was read."""

    routes: tuple[DeclaredRoute, ...]
    source: str


class Dropped(NamedTuple):
    """A newer routes file could not be read: what an older one still waits for is not wanted any more."""

    refusal: Refusal


class Reported(NamedTuple):
    """A gateway reported."""

    report: GatewayReport


class Tick(NamedTuple):
    """Time went by."""


Event: TypeAlias = Imported | Compared | Unloaded | Declared | Dropped | Reported | Tick
