"""From a version's files to a model that answers in presented tensors, rehearsed before anyone may call it."""

import asyncio
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import msgspec
import numpy as np

from adapters.catalog import adapter_for
from adapters.golden import GoldenCase, compare, read_golden, runtime_declared, samples_for
from adapters.interface import LoadedModel, LoadFailed, ModelSource, QuickModel, SyncModel
from adapters.threads import ThreadedModel
from gateway.serving.declared import settled
from gateway.serving.within import within
from turnout.core.clock import Deadline, monotonic_s
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault, TurnoutError
from turnout.core.presentation import Presentation, PresentationError
from turnout.core.request import CallContext
from turnout.core.signature import OutputCheck, Signature, check_inputs, rows_of
from turnout.core.snapshot import VersionEntry
from turnout.core.tensor import Datatype, Tensor, TensorMap

GOLDEN_S: Final = 120.0
WARM_CALLS: Final = 160  # enough for a quick model to be measured and moved inline before its first request
WARM_S: Final = 1.0


class Call(CallContext):
    """One call of a model: its rows (None where axis 0 is not rows), and the seconds that its parts took."""

    rows: int | None = None
    queue_s: float = 0.0
    input_s: float = 0.0
    predict_s: float = 0.0
    output_s: float = 0.0


class Engine:
    """A loaded model behind its presentation: presented tensors in, presented tensors out.

    `outputs` are all its output names; to ask for all of them, hand over this very tuple.
    """

    __slots__ = ("_checked", "_converts", "_presentation", "_quick", "_runtime_names", "model", "outputs", "signature")

    def __init__(self, model: LoadedModel, presentation: Presentation, signature: Signature) -> None:
        self.model = model
        self.signature = signature
        self.outputs = tuple(spec.name for spec in signature.outputs)
        self._checked = OutputCheck(signature).check
        self._presentation = presentation
        self._converts = not presentation.is_identity
        self._runtime_names = presentation.runtime_outputs(self.outputs)
        self._quick = model.predict_now if isinstance(model, QuickModel) else None

    def predict_now(
        self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None
    ) -> dict[str, Tensor] | None:
        """Do what `predict` does if the model answers without waiting; else return None, with nothing done."""
        if self._quick is None:
            return None
        if self._converts:
            inputs = self._to_runtime(inputs, call)
        names = self._runtime_names if wanted is self.outputs else self._presentation.runtime_outputs(wanted)
        asked_s = monotonic_s()
        try:
            answer = self._quick(inputs, names, call)
        except asyncio.CancelledError:  # nobody can cancel within one turn
            raise ModelFault("the model cancelled the call") from None
        except TurnoutError:
            raise
        except Exception as error:
            raise _fault(error) from error
        finally:
            answered_s = monotonic_s()
            call.predict_s = answered_s - asked_s
        if answer is None:
            call.predict_s = 0.0
            return None
        if call.deadline.at_s <= answered_s:
            raise DeadlineExceeded("the deadline passed while the model ran")
        return self._presented(answer, wanted, call, rows) if self._converts else self._checked(answer, wanted, rows)

    async def predict(
        self, inputs: TensorMap, wanted: Sequence[str], call: Call, rows: int | None
    ) -> dict[str, Tensor]:
        """Run the model once on checked inputs, and time it.

        Raises what the model means (core errors); ModelFault for anything else and for an answer that breaks the
        signature; DeadlineExceeded when the deadline passes first.
        """
        if self._converts:
            inputs = self._to_runtime(inputs, call)
        names = self._runtime_names if wanted is self.outputs else self._presentation.runtime_outputs(wanted)
        asked_s = monotonic_s()
        try:
            answer = await within(call.deadline, self.model.predict(inputs, names, call))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the caller left
            raise ModelFault("the model cancelled the call") from None
        except TurnoutError:
            raise
        except Exception as error:
            raise _fault(error) from error
        finally:
            call.predict_s = monotonic_s() - asked_s
        return self._presented(answer, wanted, call, rows) if self._converts else self._checked(answer, wanted, rows)

    def _to_runtime(self, inputs: TensorMap, call: Call) -> TensorMap:
        began_s = monotonic_s()
        converted = self._presentation.to_runtime(inputs)
        call.input_s = monotonic_s() - began_s
        return converted

    def _presented(self, answer: TensorMap, wanted: Sequence[str], call: Call, rows: int | None) -> dict[str, Tensor]:
        began_s = monotonic_s()
        presented = self._checked(self._presentation.to_presented(answer, wanted), wanted, rows)
        call.output_s = monotonic_s() - began_s
        return presented


async def load(entry: VersionEntry, directory: Path, socket: Path | None, scratch: Path) -> Engine:
    """Load a version. Raises LoadFailed with the reason; nothing is left open then."""
    source = ModelSource(
        name=str(entry.ref),
        directory=directory,
        artifact=directory / entry.artifact,
        declared=runtime_declared(entry),
        options=entry.options,
        trusted=entry.trusted,
        scratch=scratch,
        samples=await asyncio.to_thread(samples_for, entry, directory),
        socket=socket,
    )
    # An engine's import takes seconds on a busy machine; on the loop it would look like a process that hangs.
    adapter = await asyncio.to_thread(adapter_for, entry.runtime)
    model = _awaitable(await adapter.load(source))
    try:
        presentation = Presentation(
            model.signature,
            rename_inputs=entry.rename.inputs,
            rename_outputs=entry.rename.outputs,
            cast_inputs=entry.cast.inputs,
            cast_outputs=entry.cast.outputs,
        )
        return Engine(model, presentation, settled(presentation.signature, entry.signature))
    except (PresentationError, LoadFailed) as error:
        await model.close()
        raise LoadFailed(str(error)) from error


async def replay_golden(engine: Engine, entry: VersionEntry, directory: Path) -> GoldenCase | None:
    """Ask the model what the golden file asks; return it, its inputs checked, or None where there is no such file.

    Raises LoadFailed naming tensor, row and both values when an answer is off by more than the tolerance; what the
    model raises passes.
    """
    if entry.golden is None:
        return None
    case = await asyncio.to_thread(read_golden, directory / entry.golden)
    try:
        inputs = check_inputs(engine.signature, case.inputs)
    except InvalidInput as error:
        raise LoadFailed(f"golden: {error.message}") from error
    for name in case.outputs:
        if name not in engine.outputs:
            raise LoadFailed(f"golden: output '{name}' is none of the model's ({', '.join(engine.outputs)})")
    call = Call("golden", Deadline.after(GOLDEN_S))
    answer = await engine.predict(inputs, tuple(case.outputs), call, rows_of(engine.signature, inputs))
    difference = compare(case, answer)
    if difference is not None:
        raise LoadFailed(difference)
    return msgspec.structs.replace(case, inputs=inputs)


async def warm(engine: Engine, golden: GoldenCase | None) -> None:
    """Call the model on one row again and again, at most 1 s: first calls are slow, and quickness is measured.

    Without a golden file the row is made of zeros, and a model that cannot answer it stays as it is.
    """
    inputs = one_row(engine.signature, golden.inputs) if golden is not None else zero_row(engine.signature)
    if inputs is None:
        return
    end = Deadline.after(WARM_S)
    rows = rows_of(engine.signature, inputs)
    for _ in range(WARM_CALLS):
        if end.passed:
            return
        try:
            await engine.predict(inputs, engine.outputs, Call("warm-up", Deadline.after(GOLDEN_S)), rows)
        except (ModelFault, InvalidInput):
            return


def one_row(signature: Signature, examples: TensorMap) -> dict[str, Tensor]:
    """Return the first row of checked inputs; inputs whose axis 0 is not rows stay whole."""
    return {
        spec.name: examples[spec.name].row_slice(0, 1) if spec.shape[:1] == (-1,) else examples[spec.name]
        for spec in signature.inputs
    }


def zero_row(signature: Signature) -> dict[str, Tensor] | None:
    """Return one row of zeros; None where an input is text, for which there is no harmless value."""
    if any(spec.datatype is Datatype.BYTES for spec in signature.inputs):
        return None
    return {
        spec.name: Tensor(
            spec.datatype, np.zeros([1 if axis == -1 else axis for axis in spec.shape], spec.datatype.dtype)
        )
        for spec in signature.inputs
    }


def _fault(error: Exception) -> ModelFault:
    return ModelFault(f"the model raised {type(error).__name__}: {error}")


def _awaitable(model: LoadedModel | SyncModel) -> LoadedModel:
    if inspect.iscoroutinefunction(model.predict):
        return cast("LoadedModel", model)
    return ThreadedModel(cast("SyncModel", model))
