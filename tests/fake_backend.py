"""A gateway in memory for the doors' tests: models are functions, every call and refusal is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gateway.doors import interface
from gateway.doors.interface import IndexEntry, ModelDescription, Timing, VersionStatistics
from gateway.limits import Limits
from gateway.pressure import Pressure
from turnout.core.errors import InvalidInput, NotFound, Overloaded, TurnoutError
from turnout.core.ids import VersionRef
from turnout.core.request import Prediction, PredictRequest
from turnout.core.signature import Signature, TensorSpec, check_inputs, names
from turnout.core.tensor import Datatype, Tensor

Answer = Callable[[Mapping[str, Tensor]], Awaitable[Mapping[str, Tensor]]]


class FakeModel:
    """A model of one version, which answers what `answer` makes of its inputs; one that is `quick` never waits."""

    def __init__(
        self,
        signature: Signature,
        answer: Answer,
        *,
        number: int = 1,
        fallback: str | None = None,
        quick: bool = False,
    ) -> None:
        self.quick = quick
        self.signature = signature
        self.answer = answer
        self.number = number
        self.fallback = fallback
        self.ready = True


class FakeBackend:
    """Implements `gateway.doors.interface.Backend` over a dictionary of models, whose names are the routes.

    With `at_once` quick models are not waited for. Models in `crowded` have no room.
    """

    def __init__(self, models: Mapping[str, FakeModel], *, at_once: bool = True, limits: Limits | None = None) -> None:
        self.at_once = at_once
        self.pressure = Pressure(limits or Limits())
        self.crowded: set[str] = set()
        self.models = dict(models)
        self.generation = 7
        self.server_ready = True
        self.requests: list[PredictRequest] = []
        self.refusals: list[tuple[str, str, TurnoutError]] = []
        self.outcomes: list[str] = []
        self.in_flight = 0
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.counted = [VersionStatistics("echo", "1", 5, 3, 2, *[Timing(2, 10)] * 6)]

    def predict(self, request: PredictRequest) -> interface.Answer:
        """Check, run and have the answer written as the router does."""
        model = self.models.get(request.route)
        work = self._recorded(request)
        if model is None or not model.quick or not self.at_once:
            return work
        try:
            work.send(None)
        except StopIteration as ended:
            prediction: Prediction = ended.value
            return prediction
        raise AssertionError("a quick model waited")

    def crowd(self, *names: str) -> None:
        """Let these models have no room from now on; none: all have room."""
        self.crowded = set(names)
        self.pressure.crowd(len(names) - self.pressure.crowded)

    def shed(
        self,
        name: str,
        number: int | None,
        headers: Mapping[str, str],
        protocol: str,
        request_id: str,
        received_s: float,
        left_s: float | None,
    ) -> interface.Shed | None:
        """Shed requests for `crowded` models, and keep that."""
        if name not in self.crowded:
            return None
        error = Overloaded("full", retry_after_s=3)
        self.refusals.append((name, protocol, error))
        return interface.Shed(error, VersionRef(name, self.models[name].number))

    async def _recorded(self, request: PredictRequest) -> Prediction:
        """Run one request; `outcomes` keeps how it ended."""
        self.requests.append(request)
        self.in_flight += 1
        try:
            prediction = await self._predict(request)
        except asyncio.CancelledError:
            self.outcomes.append("cancelled")
            raise
        except TurnoutError as error:
            self.outcomes.append(error.code)
            raise
        finally:
            self.in_flight -= 1
        self.outcomes.append("ok")
        return prediction

    async def _predict(self, request: PredictRequest) -> Prediction:
        request.generation = self.generation
        model = self._find(request.route, request.version)
        request.picked = VersionRef(request.route, model.number)
        inputs = check_inputs(model.signature, request.inputs)
        for name in request.outputs:
            if model.signature.output(name) is None:
                raise InvalidInput(f"output '{name}': unknown; outputs are {names(model.signature.outputs)}")
        outputs = await model.answer(inputs)
        wanted = request.outputs or [spec.name for spec in model.signature.outputs]
        picked = {name: outputs[name] for name in wanted}
        version = None if model.fallback == "value" else request.picked
        prediction = Prediction(picked, version, self.generation, model.fallback)
        if request.writer is not None:
            prediction.written = request.writer.write(prediction, request)
        return prediction

    def refused(self, route: str, protocol: str, error: TurnoutError, request_id: str, received_s: float) -> None:
        """Keep the refusal."""
        self.refusals.append((route, protocol, error))

    def describe(self, name: str, version: int | None) -> ModelDescription:
        """Describe a model."""
        model = self._find(name, version)
        return ModelDescription(
            name=name,
            versions=(str(model.number),),
            platform="turnout_fake",
            inputs=model.signature.inputs,
            outputs=model.signature.outputs,
            properties={"owner": "tests"},
        )

    def is_ready(self) -> bool:
        """Tell what the test set."""
        return self.server_ready

    def is_model_ready(self, name: str, version: int | None) -> bool:
        """Tell what the test set."""
        return self._find(name, version).ready

    def index(self, *, ready_only: bool) -> Sequence[IndexEntry]:
        """List the models."""
        entries = [
            IndexEntry(name, str(model.number), "READY" if model.ready else "LOADING", "")
            for name, model in self.models.items()
        ]
        return [entry for entry in entries if entry.state == "READY"] if ready_only else entries

    def configuration(self, name: str, version: int | None) -> Mapping[str, object]:
        """Return a small configuration."""
        self._find(name, version)
        return {"name": name, "platform": "turnout_fake", "max_batch_size": 64, "input": [], "output": []}

    def statistics(self, name: str | None, version: int | None) -> Sequence[VersionStatistics]:
        """Return what the test set."""
        if name is not None:
            self._find(name, version)
        return self.counted

    async def repository_load(self, name: str) -> None:
        """Keep the name."""
        self._find(name, None)
        self.loaded.append(name)

    async def repository_unload(self, name: str) -> None:
        """Keep the name."""
        self._find(name, None)
        self.unloaded.append(name)

    def _find(self, name: str, version: int | None) -> FakeModel:
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if version not in (None, model.number):
            raise NotFound(f"Request for unknown model: '{name}' version {version} is not found")
        return model


def echo(datatype: Datatype, shape: tuple[int, ...] = (-1,), *, nullable: bool = True) -> FakeModel:
    """Return a model that answers its input x as y."""

    async def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": inputs["x"]}

    signature = Signature(
        inputs=(TensorSpec("x", datatype, shape, nullable),), outputs=(TensorSpec("y", datatype, shape),)
    )
    return FakeModel(signature, answer, quick=True)


def simple() -> FakeModel:
    """Return the `simple` model of Triton's examples: sum and difference of two INT32 [-1, 16] tensors."""

    async def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        left, right = inputs["INPUT0"].array, inputs["INPUT1"].array
        return {"OUTPUT0": Tensor.of(left + right), "OUTPUT1": Tensor.of(left - right)}

    signature = Signature(
        inputs=tuple(TensorSpec(name, Datatype.INT32, (-1, 16)) for name in ("INPUT0", "INPUT1")),
        outputs=tuple(TensorSpec(name, Datatype.INT32, (-1, 16)) for name in ("OUTPUT0", "OUTPUT1")),
    )
    return FakeModel(signature, answer, quick=True)


def constant(**outputs: Tensor) -> FakeModel:
    """Return a model that answers the same whatever its input x (FP64 [-1]) is."""

    async def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return outputs

    signature = Signature(
        inputs=(TensorSpec("x", Datatype.FP64, (-1,)),),
        outputs=tuple(TensorSpec(name, tensor.datatype, tensor.shape) for name, tensor in outputs.items()),
    )
    return FakeModel(signature, answer, quick=True)


def raising(error: BaseException) -> FakeModel:
    """Return a model that raises, whatever its input x (FP64 [-1]) is."""

    async def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise error

    return FakeModel(Signature(inputs=(TensorSpec("x", Datatype.FP64, (-1,)),)), answer, quick=True)


class Gate:
    """A model's held breath: its calls wait at the gate until a test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    def model(self) -> FakeModel:
        """Return a model of input x (FP64 [-1]) that answers y once the gate is open."""

        async def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            self.reached.set()
            await self.open.wait()
            return {"y": inputs["x"]}

        spec = TensorSpec("x", Datatype.FP64, (-1,))
        return FakeModel(Signature(inputs=(spec,), outputs=(TensorSpec("y", Datatype.FP64, (-1,)),)), answer)
