"""Turns the machine of publications: feeds it events, records what it publishes, tells who waits. Decides nothing."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from turnout.control.metrics import ControlMetrics
from turnout.control.publish.change import Step, advance, observe
from turnout.control.publish.state import Event, Refusal, State, Tick
from turnout.control.registry.interface import NotRecorded, Registry
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.snapshot import Snapshot, digest, encode

TICK_S: Final = 0.5
_log: Final = logging.getLogger(__name__)


class Publication:
    """A snapshot with its canonical bytes."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.data = encode(snapshot)
        self.digest = digest(self.data)


class Publisher:
    """The state of publications and everybody who waits for it. `refusal` is the latest of the routes file.

    Until `begin` events are only noted: what stands in FOLDER must be known before anything is decided.
    """

    def __init__(self, state: State, registry: Registry, metrics: ControlMetrics) -> None:
        self.state = state
        self.publication: Publication | None = None
        self.refusal: Refusal | None = None
        self._registry = registry
        self._metrics = metrics
        self._changed = asyncio.Event()
        self._begun = False
        self._unrecorded = ""
        self._leaving = False

    def begin(self) -> None:
        """Publish from now on."""
        self._begun = True
        self.apply(Tick())

    def note(self, event: Event) -> None:
        """Take note of an event without publishing: more is known in a moment."""
        self.state, refusal = observe(self.state, event, monotonic_s())
        self.refused(refusal)

    def apply(self, event: Event) -> None:
        """Take note of an event and publish what follows."""
        self.note(event)
        if not self._begun:
            return
        step = advance(self.state, monotonic_s())
        try:
            if step.publication is not None:
                self._registry.publish(step.publication, step.cause)
                self._report_unrecorded("")
        except NotRecorded as error:
            # What was observed is kept; the next tick tries again.
            self._report_unrecorded(str(error))
            return
        self._follow(step)

    def _report_unrecorded(self, problem: str) -> None:
        """Say once that nothing can be recorded, and once that it can be again."""
        if problem == self._unrecorded:
            return
        self._unrecorded = problem
        if problem:
            _log.error("STATE cannot be written: %s; until it can be, what serves goes on unchanged", problem)
        else:
            _log.info("STATE can be written again")

    async def tick(self) -> None:
        """Let time count, until cancelled."""
        while True:
            self.apply(Tick())
            await asyncio.sleep(TICK_S)

    def refused(self, refusal: Refusal | None) -> None:
        """Report routes that were not taken; the old ones go on."""
        if refusal is None:
            return
        self.refusal = refusal
        self._metrics.refused.labels("routes_file").inc()
        goes_on = "there are none of before, so nothing is routed" if self.state.is_first else "the old routes go on"
        _log.error("%s (refused; %s)", refusal, goes_on)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition` holds, looking after each change; False when the time is over or control leaves."""
        deadline = Deadline.after(seconds)
        while not condition():
            left_s = deadline.left_s
            if left_s <= 0 or self._leaving:
                return False
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), left_s)
            except TimeoutError:
                return condition()
        return True

    def leave(self) -> None:
        """Let everybody go who waits."""
        self._leaving = True
        self._tell()

    def _follow(self, step: Step) -> None:
        self.state = step.state
        self.refused(step.refusal)
        if step.accepted:
            self.refusal = None
            if step.publication is None:
                _log.info("%s says what is in force", step.accepted)
        for fault in step.taken_out:
            self._metrics.taken_out.inc()
            _log.error("%s; taken out of the route", fault)
        if self.publication is None or step.publication is not None:
            self._publish(step)
        self._metrics.pending.set(self.state.pending is not None)
        self._metrics.import_problems.set(len(self.state.problems))
        self._metrics.gateways.set(len(self.state.live(monotonic_s())))
        self._tell()

    def _publish(self, step: Step) -> None:
        """Give out the snapshot; after a restart that changed nothing, the one of before."""
        snapshot = step.state.snapshot
        if snapshot is None:
            return
        self.publication = Publication(snapshot)
        self._metrics.generation.set(snapshot.generation)
        self._metrics.routes_generation.set(snapshot.routes_generation)
        if step.publication is None:
            return
        if snapshot.routes_generation == snapshot.generation:
            _log.info("generation %d: %d routes (%s)", snapshot.generation, len(snapshot.routes), step.cause)
        else:
            _log.info("generation %d: %d versions held", snapshot.generation, len(snapshot.versions))

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
