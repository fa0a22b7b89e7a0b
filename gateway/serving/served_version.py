"""One version in this process, from its load to its end: its stage, its bounds, and the way to its model."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from adapters.golden import GoldenCase
from adapters.interface import BoundedModel, LoadFailed, WatchedModel
from gateway.observe.metrics import Metrics
from gateway.observe.predicted import Predicted
from gateway.pressure import Pressure
from gateway.serving.admission import Admission
from gateway.serving.batcher import Batcher
from gateway.serving.breaker import Breaker, State
from gateway.serving.loading import Call, Engine, load, replay_golden, warm
from gateway.serving.row_check import Finding, look, most_rows, refuse
from gateway.serving.stages import REPORTED, Stage, step
from turnout.core.clock import monotonic_s, wall_s
from turnout.core.errors import DeadlineExceeded, Failing, ModelFault, NotReady, TurnoutError
from turnout.core.report import VersionReport
from turnout.core.signature import Signature
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import Tensor, TensorMap

_LOG: Final = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why a version is not served; `quarantined`: because processes died of it, until somebody asks for a load."""

    reason: str
    quarantined: bool = False


class ServedVersion:
    """A version of the pool. `on_change` is called after each step of its life, `reason` says why it is not ready."""

    def __init__(
        self, entry: VersionEntry, metrics: Metrics, on_change: Callable[["ServedVersion"], None], pressure: Pressure
    ) -> None:
        self.entry = entry
        self.ref = entry.ref
        self.key = str(entry.ref)
        self.stage = Stage.LOADING
        self.serving = False
        self.breaker = Breaker(entry.limits.failures)
        self.reason = ""
        self.engine: Engine | None = None
        self.predicted: Predicted | None = None
        self.metrics = metrics.version(entry.ref)
        self.load_seconds = 0.0
        self.crashed_calls = 0
        self.has_files = True
        self.quarantined = False
        self.socket: Path | None = None
        self._all_metrics = metrics
        self._on_change = on_change
        self._admission = Admission(entry.limits, pressure)
        self._batcher: Batcher | None = None
        self._rows: Finding | None = None
        self._in_rotation = False
        self._directory = Path()
        self._recovery: asyncio.Task[None] | None = None

    @property
    def signature(self) -> Signature | None:
        """The presented signature; None until the model is loaded."""
        return self.engine.signature if self.engine else None

    @property
    def may_be_retried(self) -> bool:
        """Whether a load is worth a try once it is told where the files are: they were missing, or withheld."""
        return not self.has_files or (self.quarantined and not self.entry.runtime.uses_worker)

    @property
    def gathers(self) -> bool:
        """Whether requests that wait may go into one call."""
        return self._batcher is not None and self._batcher.max_rows > 1

    @property
    def properties(self) -> dict[str, str]:
        """What metadata shows of the model and of how it is called."""
        if self.engine is None:
            return {}
        return {**self.engine.model.properties, "batching": self._batching_told()}

    def report(self) -> VersionReport:
        """Return its state as the parent hears of it. Not for a version that left the snapshot."""
        return VersionReport(
            state=REPORTED[self.stage],
            reason=self.reason,
            signature=self.signature,
            properties=self.properties,
            load_seconds=self.load_seconds,
            crashed_calls=self.crashed_calls,
            quarantined=self.quarantined,
        )

    async def load(self, directory: Path, socket: Path | None, scratch: Path) -> None:
        """Load, rehearse and become ready, or failed with a reason. A model's fault is never raised."""
        started_s = monotonic_s()
        self._directory = directory
        try:
            self.engine = await load(self.entry, directory, socket, scratch)
            self._bind_predicted()
            self._become(Stage.WARMING)
            model = self.engine.model
            if isinstance(model, BoundedModel):
                self._admission.at_once = model.calls_at_once
            if isinstance(model, WatchedModel):
                model.watch(self._lost, self._back)
            golden = await replay_golden(self.engine, self.entry, directory)
            await warm(self.engine, golden)
            await self._look_at_rows(self.engine, golden)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a model that breaks must not take the gateway along
            if self.stage in (Stage.LOADING, Stage.WARMING):  # else its worker died meanwhile: it may come back
                await self.fail(Failure(self._told(error)))
            return
        if self.stage is Stage.WARMING:
            self._loaded_in(monotonic_s() - started_s)

    def predict_now(
        self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None
    ) -> dict[str, Tensor] | None:
        """Do what `predict` does if nothing has to be waited for; else return None, with nothing done."""
        engine, admission = self.engine, self._admission
        if engine is None or not self.serving:
            self.check_ready()
            return None
        if admission.running >= admission.in_flight:
            return None
        if call.deadline.at_s <= monotonic_s():
            raise DeadlineExceeded("the deadline passed before the model started")
        try:
            outputs = engine.predict_now(inputs, wanted, call, rows)
        except TurnoutError as error:
            if isinstance(error, ModelFault):
                self._fault(call, error)
            self._count_failed(call)
            raise
        if outputs is not None:
            self._answered(call, rows)
        return outputs

    async def predict(
        self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None
    ) -> dict[str, Tensor]:
        """Have a request answered inside the version's bounds; `inputs` are checked, `rows` None: axis 0 is not rows.

        Raises NotReady, Overloaded, DeadlineExceeded, and what `Engine.predict` raises. Work that expired, or whose
        caller left, is never started; either gives its place back.
        """
        tries = not self.serving and self._in_rotation and self.breaker.tries(monotonic_s())
        if self.engine is None or not (self.serving or tries):
            raise self._not_ready()
        counted = rows or 1
        behind = self._admission.arrive(counted, call.deadline)
        late: bool | None = None
        try:
            if self._batcher is not None and rows is not None:
                outputs = await self._batcher.predict(inputs, wanted, call, rows)
            else:
                outputs = await self._alone(inputs, wanted, call, rows)
            late = False if behind else None
        except DeadlineExceeded:
            late = True if behind else None
            raise
        except ModelFault as fault:
            self._fault(call, fault)
            raise
        finally:
            self._admission.depart(counted, ran=call.predict_s > 0, late=late)
            if tries:
                self.breaker.undecided()
        return outputs

    async def _alone(self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None) -> dict[str, Tensor]:
        admission = self._admission
        if not admission.try_enter():
            await self._wait(inputs, rows or 1, call)
        try:
            return await self._run(inputs, wanted, call, rows)
        finally:
            admission.leave()

    async def _run(self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None) -> dict[str, Tensor]:
        """Call the model once, in a place of the admission, and count the call."""
        engine = self.engine
        assert engine is not None  # it stays while a place is taken
        if call.deadline.passed:
            raise DeadlineExceeded("the deadline passed before the model started")
        try:
            outputs = await engine.predict(inputs, wanted, call, rows)
        except (TurnoutError, asyncio.CancelledError):
            self._count_failed(call)
            raise
        self._answered(call, rows)
        return outputs

    def check_ready(self) -> None:
        """Raise NotReady unless calls are taken now, or one that finds out whether the version is well again."""
        if not self.serving and not (self._in_rotation and self.breaker.is_due(monotonic_s())):
            raise self._not_ready()

    def sheds(self, left_s: float) -> int:
        """Tell whether one row more would find no room, or no answer in the time left: when to come back, else 0.

        Says nothing of readiness.
        """
        return self._admission.sheds(1, left_s)

    def adopt(self, entry: VersionEntry) -> None:
        """Take what a newer snapshot says of the same bytes: bounds and buckets."""
        if entry == self.entry:
            return
        self.entry = entry
        self._admission.rebound(entry.limits)
        self.breaker.threshold = entry.limits.failures
        self._bind_predicted()
        if self.engine is not None and self._rows is not None:
            self._bind_batcher(self.engine, self._rows)

    async def fail(self, failure: Failure) -> None:
        """Leave rotation for good, and let the model go. Does nothing to a version that failed or is leaving."""
        if self.stage in (Stage.FAILED, Stage.DRAINING, Stage.UNLOADED):
            return
        self.quarantined = failure.quarantined
        self._become(Stage.FAILED, failure.reason)
        await self._close()

    def lack_files(self, failure: Failure) -> None:
        """Fail before the load: the version's files are not on this machine; they may come with a later snapshot."""
        self.has_files = False
        self.quarantined = failure.quarantined
        self._become(Stage.FAILED, failure.reason)

    async def unload(self) -> None:
        """Finish what was begun, then let the model go. Its load must have come to an end."""
        self._become(Stage.DRAINING)
        await self._close()
        self._become(Stage.UNLOADED)

    async def _look_at_rows(self, engine: Engine, golden: GoldenCase | None) -> None:
        """Find out whether requests may be gathered, as long as nobody calls. Raises LoadFailed where told wrongly."""
        if self.entry.batching is not False:
            self._rows = await look(engine, golden)
            refuse(self.entry, self._rows)
            self._bind_batcher(engine, self._rows)

    def _bind_batcher(self, engine: Engine, finding: Finding) -> None:
        rows, model = most_rows(self.entry, finding), engine.model
        if self._batcher is not None:
            # One row a call is none that gathers. What is under way counts on: so a batcher stays.
            self._batcher.rebound(max(1, rows))
        elif rows > 1 and isinstance(model, BoundedModel):
            self._batcher = Batcher(
                self._admission,
                self.metrics,
                self._run,
                engine.signature,
                max_rows=rows,
                calls_at_once=model.calls_at_once,
            )

    async def _close(self) -> None:
        recovery = self._recovery
        if recovery is not None and recovery is not asyncio.current_task():
            recovery.cancel()
            await asyncio.wait([recovery])
        while self._admission.running:
            await self._admission.idle.wait()
        engine, self.engine = self.engine, None
        if engine is None:
            return
        try:
            await engine.model.close()
        except Exception:  # noqa: BLE001  a model that cannot close is let go all the same
            _LOG.exception("version %s did not close as it should", self.key)

    def _batching_told(self) -> str:
        if self._batcher is not None and self.gathers:
            return f"up to {self._batcher.max_rows} rows"
        return f"off: {self._rows.reason}" if self._rows is not None and self._rows.reason else "off"

    def _not_ready(self) -> NotReady:
        if not self._in_rotation:
            return NotReady(f"version {self.key} is not ready")
        return Failing(self.why_not, retry_after_s=math.ceil(self.breaker.left_s(monotonic_s())))

    @property
    def why_not(self) -> str:
        """Why a version in rotation is not asked just now; empty if it is."""
        if self.serving or not self._in_rotation:
            return ""
        return f"version {self.key} has failed {self.breaker.failures} calls in a row and rests"

    async def _wait(self, inputs: TensorMap, rows: int, call: Call) -> None:
        began_s = monotonic_s()
        self.metrics.queue_rows.add(rows)
        try:
            await self._admission.enter(rows, call.deadline, sum(tensor.nbytes for tensor in inputs.values()))
        finally:
            self.metrics.queue_rows.add(-rows)
            call.queue_s = monotonic_s() - began_s
            self.metrics.queue_seconds.add(call.queue_s)

    def _fault(self, call: Call, fault: ModelFault) -> None:
        _LOG.error("request %s: model %s: %s", call.request_id, self.key, fault.message, exc_info=fault)
        if self.breaker.failed(monotonic_s()):
            self._rest_or_go_on()

    def _count_failed(self, call: Call) -> None:
        if call.predict_s:
            self.metrics.predict.observe(call.predict_s)
            self.metrics.input_seconds.add(call.input_s)

    def _answered(self, call: Call, rows: int | None) -> None:
        metrics = self.metrics
        metrics.predict.observe_with(call.predict_s, metrics.batch_rows, rows or 1)
        metrics.last_answer.set(wall_s())
        if self.breaker.failures and self.breaker.succeeded(monotonic_s()):
            self._rest_or_go_on()
        if call.output_s:
            metrics.input_seconds.add(call.input_s)
            metrics.output_seconds.add(call.output_s)

    def _rest_or_go_on(self) -> None:
        """Take the version out of rotation for a while, or back into it, as the breaker says."""
        rests = self.breaker.state is not State.CLOSED
        self.serving = self._in_rotation and not rests
        self.metrics.resting.set(float(rests))
        if rests:
            _LOG.error("%s; the next try comes in %g s", self.why_not, self.breaker.left_s(monotonic_s()))
        else:
            _LOG.warning("version %s answers again", self.key)

    def _lost(self, reason: str, calls_in_flight: int) -> None:
        if self.stage in (Stage.WARMING, Stage.READY):
            self.crashed_calls = calls_in_flight
            self._become(Stage.LOST, reason)
        elif self.stage is Stage.LOST:  # again, during the rehearsal
            self.crashed_calls = calls_in_flight
            self.reason = reason
            self._on_change(self)

    def _back(self) -> None:
        if self.stage is Stage.LOST and self.engine is not None:
            if self._recovery is not None:
                self._recovery.cancel()
            # The parent counts a loss when calls begin to be told: so one during the rehearsal is told anew.
            self.crashed_calls = 0
            self._on_change(self)
            self._recovery = asyncio.create_task(self._recover(self.engine))

    async def _recover(self, engine: Engine) -> None:
        """Let a version back into rotation once its fresh worker passes the golden file."""
        started_s = monotonic_s()
        try:
            golden = await replay_golden(engine, self.entry, self._directory)
            if self._rows is None:  # its worker was lost before they were looked at
                await self._look_at_rows(engine, golden)
        except NotReady:
            return  # lost again; the next worker gets its turn
        except Exception as error:  # noqa: BLE001  as in `load`
            await self.fail(Failure(self._told(error)))
            return
        if self.stage is Stage.LOST:
            self._loaded_in(monotonic_s() - started_s)

    def _loaded_in(self, seconds: float) -> None:
        self.load_seconds = seconds
        self.metrics.load_seconds.set(seconds)
        self._become(Stage.READY)

    def _bind_predicted(self) -> None:
        if self.engine is not None:
            bounds = self.entry.metrics.value
            self.predicted = self._all_metrics.predicted(self.ref, self.engine.signature.outputs, bounds)

    def _become(self, stage: Stage, reason: str = "") -> None:
        was_in_rotation = self._in_rotation
        self.stage = step(self.stage, stage)
        self._in_rotation = stage is Stage.READY or (stage is Stage.DRAINING and was_in_rotation)
        self.serving = self._in_rotation and self.breaker.state is State.CLOSED
        self.reason = reason
        self._on_change(self)

    def _told(self, error: Exception | SystemExit) -> str:
        """Return why a load failed, in one line; what nobody foresaw goes to the log whole."""
        if isinstance(error, LoadFailed | TurnoutError):
            text = str(error)
        else:
            _LOG.error("version %s cannot be loaded", self.key, exc_info=error)
            text = f"{type(error).__name__}: {error}"
        return " ".join(text.split())
