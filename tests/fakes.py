"""A whole data plane over models that do what a test says: pool, router and follower are the real ones."""

import asyncio
import inspect

import numpy as np

from adapters.interface import LoadFailed
from gateway.observe.exposition import merged
from gateway.observe.metrics import Metrics
from gateway.parent.messages import Commit, Prepare, Report
from gateway.routing.backend import GatewayBackend
from gateway.routing.follower import Follower
from gateway.routing.router import Router
from gateway.serving import loading
from gateway.serving.loading import Engine
from gateway.serving.pool import Pool
from tests.waiting import eventually_async
from turnout.core.clock import monotonic_s
from turnout.core.manifest import Runtime, VersionLimits
from turnout.core.presentation import Presentation
from turnout.core.request import Prediction, PredictRequest
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import BUCKETS, Route, Snapshot, Variant, VersionEntry, encode
from turnout.core.tensor import Datatype, Tensor

SIGNATURE = Signature(
    inputs=(TensorSpec("x", Datatype.FP64, (-1,)),),
    outputs=(TensorSpec("label", Datatype.INT64, (-1,)), TensorSpec("score", Datatype.FP64, (-1,))),
)


def numbers(*values, dtype=np.float64):
    """Return a tensor of numbers."""
    return Tensor.of(np.array(values, dtype))


def texts(*values):
    """Return a BYTES tensor; None is a missing element."""
    return Tensor.of(np.array(values, object))


def scored(inputs):
    """Answer the label 1 where x is positive, and x itself as the score."""
    x = inputs["x"].array
    return {"label": Tensor.of((x > 0).astype(np.int64)), "score": Tensor.of(x.copy())}


class FakeModel:
    """A loaded model. `answer` is called with the inputs; what it returns is awaited if it can be.

    With `at_once` an answer that needs no waiting is given within the caller's turn.
    """

    at_once = True

    def __init__(self, answer=scored, signature=SIGNATURE):
        self.properties = {"engine": "fake 1"}
        self.answer = answer
        self.signature = signature
        self.calls = []
        self.closed = 0

    async def predict(self, inputs, outputs, context):
        """Keep the call and do what the test says."""
        self.calls.append((inputs, tuple(outputs), context))
        answer = self.answer(inputs)
        return await answer if inspect.isawaitable(answer) else answer

    def predict_now(self, inputs, outputs, context):
        """Answer unless the answer has to be awaited."""
        if not self.at_once or inspect.iscoroutinefunction(self.answer):
            return None
        if inspect.iscoroutinefunction(type(self.answer).__call__):
            return None
        self.calls.append((inputs, tuple(outputs), context))
        return self.answer(inputs)

    async def close(self):
        """Count."""
        self.closed += 1


class WatchedFake(FakeModel):
    """A model whose process a test may end and bring back."""

    def watch(self, lost, back):
        """Keep whom to tell."""
        self.lost, self.back = lost, back


class Gate:
    """Calls stop here until a test lets them through."""

    def __init__(self):
        self.waiting = 0
        self.event = asyncio.Event()

    async def __call__(self, inputs):
        """Wait, then score."""
        self.waiting += 1
        try:
            await self.event.wait()
        finally:
            self.waiting -= 1
        return scored(inputs)


def raising(error):
    """Return an answer that raises."""

    def answer(inputs):
        raise error

    return answer


class FakeAdapter:
    """Loads what `models` has under the version's name: a model, or an exception to raise."""

    runtime = "fake"

    def __init__(self, models):
        self.models = models
        self.loads = []

    async def load(self, source):
        """Load by name."""
        self.loads.append(source.name)
        model = self.models.get(source.name) or LoadFailed(f"no fake model for {source.name}")
        if isinstance(model, BaseException):
            raise model
        return await model() if inspect.iscoroutinefunction(model) else model


def entry(version, *, digest="", limits=None, runtime=Runtime.PYTHON, **fields):
    """Return a version's entry; a Python worker's loads are not counted against the pool's places."""
    model, _, number = version.partition("@")
    return VersionEntry(
        model=model,
        number=int(number),
        digest=digest or f"sha256:{version}",
        runtime=runtime,
        artifact="model.bin",
        files=(),
        limits=limits or VersionLimits(),
        **fields,
    )


def variants(weights):
    """Return variants that own consecutive buckets."""
    found, start = [], 0
    for version, weight in weights.items():
        found.append(Variant(version, weight, ((start, start + weight),) if weight else ()))
        start += weight
    return tuple(found)


def route(name, champion, weights=None, **fields):
    """Return a route."""
    return Route(name, champion, variants(weights or {champion: BUCKETS}), explicit=True, **fields)


class Writer:
    """Writes answers with `write`, which gets the prediction; `long` tells what takes long."""

    def __init__(self, write=lambda _: None, long=lambda _: False):
        self._write = write
        self._long = long

    def write(self, prediction, request):
        return self._write(prediction)

    def writes_long(self, outputs):
        return self._long(outputs)


def request(x=(1.0,), *, name="m", version=None, inputs=None, outputs=(), request_id="id-1", **fields):
    """Return a request of one input `x`."""
    return PredictRequest(
        route=name,
        version=version,
        inputs={"x": numbers(*x)} if inputs is None else inputs,
        outputs=outputs,
        protocol="http",
        request_id=request_id,
        received_s=monotonic_s(),
        headers=fields.pop("headers", {}),
        parameters=fields.pop("parameters", {}),
        **fields,
    )


class Plane:
    """The data plane of one process, told what to do as its parent would."""

    def __init__(self, folder, monkeypatch, *, access_log=None, seed=1):
        self.models = {}
        self.adapter = FakeAdapter(self.models)
        monkeypatch.setattr(loading, "adapter_for", lambda runtime: self.adapter)
        self.folder = folder
        self.directory = folder / "metrics"
        self.directory.mkdir()
        self.metrics = Metrics(self.directory, 0)
        self.sent = []
        self.loads = []
        self.pool = Pool(self.metrics, folder / "scratch", self.loads.append)
        self.router = Router(self.metrics, access_log, self.pool.pressure, seed=seed)
        self.follower = Follower(self.pool, self.router, self.sent.append)
        self.backend = GatewayBackend(self.pool, self.router, self.follower, self.metrics)
        self.generation = 0

    async def prepare(
        self, entries, routes=(), *, routes_generation=None, lacking=None, alone=(), sockets=None, **fields
    ):
        """Have a snapshot prepared and return its generation; with `routes_generation` 0 it only holds.

        `lacking` versions have no files, for these reasons; those in `alone` are suspected; `sockets` are of workers.
        """
        self.generation += 1
        changed = self.generation if routes_generation is None else routes_generation
        snapshot = Snapshot("r", self.generation, changed, tuple(entries), tuple(routes), **fields)
        path = self.folder / f"{self.generation}.json"
        path.write_bytes(encode(snapshot))
        problems = lacking or {}
        directories = {str(item.ref): str(self.folder) for item in entries if str(item.ref) not in problems}
        message = Prepare(self.generation, str(path), directories, sockets or {}, problems, alone=list(alone))
        await self.follower.handle(message)
        return self.generation

    async def follow(self, entries, routes=(), **fields):
        """Have a snapshot prepared, wait until all of it is tried, and commit it."""
        generation = await self.prepare(entries, routes, **fields)
        await eventually_async(lambda: self.report is not None and self.report.held == generation)
        await self.follower.handle(Commit(generation))

    async def serve(self, models, *routes, entries=None, **fields):
        """Serve fake models by version, behind routes."""
        self.models.update(models)
        await self.follow(entries or [entry(version) for version in models], routes, **fields)

    async def predict(self, asked):
        """Have a request answered, at once or later."""
        answer = self.backend.predict(asked)
        return answer if isinstance(answer, Prediction) else await answer

    def replace_model(self, version, model):
        """Put another model in the place of a loaded one."""
        served = self.pool.get(version)
        served.engine = Engine(model, Presentation(model.signature), model.signature)

    @property
    def report(self):
        """The last report to the parent."""
        return next((message for message in reversed(self.sent) if isinstance(message, Report)), None)

    def states(self):
        """Return the reported states."""
        versions = self.report.versions if self.report is not None else {}
        return {version: report.state.value for version, report in versions.items()}

    def count(self, name, **labels):
        """Return the sum of a metric's samples that carry these labels."""
        return sum(
            sample.value
            for family in merged(self.directory)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def close(self):
        """End everything."""
        await self.router.close()
        await self.pool.close()
        self.metrics.close()
