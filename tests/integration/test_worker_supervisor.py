"""The supervisor and the gateway's side of a worker, with real Python workers."""

import asyncio
import functools
import itertools
import logging

import numpy as np
import pytest
import uvloop

from adapters.interface import LoadFailed, ModelSource
from adapters.worker import supervisor
from adapters.worker.model import WorkerModel
from adapters.worker.process import LINES_A_SECOND
from adapters.worker.supervisor import SupervisorState
from tests.contract.worker_models import python_model, source
from tests.supervised import alive, connected, context, held, supervised
from tests.waiting import eventually_async
from turnout.core.errors import DeadlineExceeded, InvalidInput, ModelFault
from turnout.core.manifest import DeclaredSignature
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Datatype, Tensor

ALL = ("y", "z")


@pytest.fixture
def holder(tmp_path):
    """The model of the worker suite, for the Python worker."""
    return python_model(tmp_path).source


def written(folder, code, **options) -> ModelSource:
    """Lay out a Python model from its code."""
    (folder / "written_model.py").write_text(code)
    return source(folder, folder, {"class": "written_model:Model", **options})


async def test_a_worker_serves_through_the_gateways_side(holder):
    """A supervised worker is described, predicts wanted outputs only, and is drained at the end."""
    async with supervised(holder, "python") as worker, connected(holder) as model:
        assert [spec.name for spec in model.signature.inputs] == ["x", "hold_ms"]
        assert model.properties["engine"].startswith("python ")
        answer = await model.predict(held(1.5), ("z",), context())
        assert {name: tensor.array.tolist() for name, tensor in answer.items()} == {"z": [2.5]}
        pid = worker.supervisor.pid
        await worker.supervisor.stop(10)
        assert worker.state is SupervisorState.STOPPED
        assert not alive(pid)
        assert not holder.socket.exists()


async def test_errors_mean_what_they_say(holder):
    """The caller's fault, the model's fault and the deadline come out as core errors."""
    async with supervised(holder, "python"), connected(holder) as model:
        with pytest.raises(InvalidInput, match=r"tensor 'x': row 0: must not be negative"):
            await model.predict(held(-1), ALL, context())
        with pytest.raises(ModelFault, match="thirteen"):
            await model.predict(held(13), ALL, context())
        with pytest.raises(DeadlineExceeded):
            await model.predict(held(1, hold_ms=1000), ALL, context(0.05))
        with pytest.raises(DeadlineExceeded):
            await model.predict(held(1), ALL, context(0))


async def test_a_caller_that_leaves_frees_its_place(holder):
    """A cancelled call that had not started is never run, and the next one gets its answer."""
    async with supervised(holder, "python"), connected(holder) as model:
        first = asyncio.create_task(model.predict(held(1, hold_ms=300), ALL, context()))
        waiting = [asyncio.create_task(model.predict(held(2, hold_ms=60_000), ALL, context(90))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        assert (await first)["y"].array.tolist() == [2]
        assert (await model.predict(held(3), ALL, context()))["y"].array.tolist() == [6]


async def test_many_calls_share_one_connection(holder):
    """Hundreds of calls at once each get their own answer."""
    async with supervised(holder, "python"), connected(holder) as model:
        answers = await asyncio.gather(*(model.predict(held(float(n)), ALL, context()) for n in range(100, 500)))
        assert [answer["y"].array.tolist() for answer in answers] == [[2.0 * n] for n in range(100, 500)]


async def test_wide_requests_travel_whole(tmp_path):
    """Bytes, missing ones among them, and big tensors come back as they went."""
    code = """
class Model:
    signature = {
        "inputs": [{"name": "b", "datatype": "BYTES", "shape": [-1], "nullable": True}],
        "outputs": [{"name": "b", "datatype": "BYTES", "shape": [-1]}],
    }

    def predict(self, inputs):
        return inputs
"""
    laid = written(tmp_path, code)
    async with supervised(laid, "python"), connected(laid) as model:
        assert model.signature.inputs == (TensorSpec("b", Datatype.BYTES, (-1,), nullable=True),)
        elements = [b"", b"a\0b\0", None, "🚂".encode(), bytes(1 << 22)]
        tensor = model_tensor(elements)
        answer = await model.predict({"b": tensor}, ("b",), context())
        assert answer["b"].array.tolist() == elements


def model_tensor(elements):
    """Return a BYTES tensor."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return Tensor(Datatype.BYTES, array)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("class Other: pass", "module 'written_model' has no usable 'Model'"),
        ("class Model:\n    def predict(self, inputs): return {}", "neither the class nor model.yaml tells"),
        ("class Model:\n    def load(self, path, options): raise SystemExit('enough')", "SystemExit: enough"),
        ("import os; os._exit(7)", "its worker exited with status 7"),
    ],
)
async def test_what_cannot_be_loaded_fails_with_a_reason(tmp_path, code, reason):
    """A model that does not load, or takes its process down, is failed in one line and not started again."""
    async with supervised(written(tmp_path, code), "python", ready=False) as worker:
        await worker.becomes(SupervisorState.FAILED)
        assert reason in worker.reason
        assert "\n" not in worker.reason
        assert worker.supervisor.restarts == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"class": "nowhere"}}, "module:Class"),
        ({"options": {}}, "options: "),
        ({"options": {"class": "m:C", "python": "/nowhere/python"}}, "no interpreter at '/nowhere/python'"),
        ({"trusted": False}, "not trusted"),
    ],
)
async def test_a_command_that_cannot_be_made_fails_with_a_reason(holder, change, reason):
    """Options and folders that allow no worker are failed before any process starts."""
    fields = {name: getattr(holder, name) for name in holder.__struct_fields__}
    async with supervised(ModelSource(**{**fields, **change}), "python", ready=False) as worker:
        await worker.becomes(SupervisorState.FAILED)
        assert reason in worker.reason


async def test_a_load_that_takes_too_long_fails(tmp_path, monkeypatch):
    """A worker that has not loaded within its start timeout is failed and killed."""
    laid = written(tmp_path, "import time\nclass Model:\n    def load(self, path, options): time.sleep(600)")
    real = supervisor.worker_command

    async def impatient(runtime, model_source):
        command = await real(runtime, model_source)
        return type(command)(command.argv, command.environment, start_timeout_s=1.5)

    monkeypatch.setattr(supervisor, "worker_command", impatient)
    async with supervised(laid, "python", ready=False) as worker:
        await eventually_async(lambda: worker.supervisor.pid)
        pid = worker.supervisor.pid
        await worker.becomes(SupervisorState.FAILED)
        assert worker.reason == "its worker has not loaded it within 1.5 s"
        await eventually_async(lambda: not alive(pid))


async def test_declared_halves_and_samples_reach_the_worker(tmp_path):
    """What model.yaml declares is the signature of a class that tells none; sample rows are tried while loading."""
    code = """
class Model:
    def load(self, path, options):
        assert path.endswith("weights.txt"), path
        assert options["depth"] == "3", options

    def predict(self, inputs):
        return {"y": inputs["x"] + 1}
"""
    spec = (TensorSpec("x", Datatype.INT64, (-1, 2)),)
    outputs = (TensorSpec("y", Datatype.INT64, (-1, 2)),)
    laid = written(tmp_path, code, depth=3)
    fields = {name: getattr(laid, name) for name in laid.__struct_fields__}
    laid = ModelSource(
        **{
            **fields,
            "artifact": tmp_path / "weights.txt",
            "declared": DeclaredSignature(inputs=spec, outputs=outputs),
        }
    )
    async with supervised(laid, "python"), connected(laid) as model:
        assert (model.signature.inputs, model.signature.outputs) == (spec, outputs)


async def test_log_lines_are_forwarded_and_capped(tmp_path, caplog):
    """A worker's lines reach the log under its name, at most so many a second; the rest is counted."""
    caplog.set_level(logging.INFO, "adapters.worker.process")
    code = f"""
class Model:
    signature = {{"inputs": [], "outputs": []}}

    def load(self, path, options):
        for number in range({20 * LINES_A_SECOND}):
            print("line", number)
        print("x" * 100_000)
"""
    async with supervised(written(tmp_path, code), "python") as worker:
        await worker.supervisor.stop(0)
    lines = [record.getMessage() for record in caplog.records]
    assert "worker holder@1: line 0" in lines
    assert len(lines) < 10 * LINES_A_SECOND
    assert any("lines dropped" in line for line in lines)
    assert max(map(len, lines)) < 3000


async def test_nobody_started_a_worker(holder):
    """Without a socket, and without a worker behind it, the load fails in words."""
    fields = {name: getattr(holder, name) for name in holder.__struct_fields__}
    with pytest.raises(LoadFailed, match="nobody started one"):
        await WorkerModel.connect(ModelSource(**{**fields, "socket": None}))
    with pytest.raises(LoadFailed, match=r"has not loaded it within 0.1 s"):
        await WorkerModel.connect(holder, within_s=0.1)


async def test_a_socket_path_that_is_too_long_is_named(holder, tmp_path):
    """A state folder so deep that no socket fits is failed with the fix."""
    fields = {name: getattr(holder, name) for name in holder.__struct_fields__}
    deep = ModelSource(**{**fields, "socket": tmp_path / ("d" * 90) / "s"})
    async with supervised(deep, "python", ready=False) as worker:
        await worker.becomes(SupervisorState.FAILED)
        assert "shorter --state" in worker.reason


def test_it_works_on_the_gateways_loop(holder):
    """Supervisor and connection work on uvloop as on asyncio's own loop."""

    async def served():
        async with supervised(holder, "python") as worker, connected(holder) as model:
            big = {name: Tensor.of(np.zeros(1 << 18, tensor.array.dtype)) for name, tensor in held(1).items()}
            answers = await asyncio.gather(*(model.predict(big, ("z",), context()) for _ in range(4)))
            with pytest.raises(DeadlineExceeded):
                await model.predict(held(1, hold_ms=1000), ALL, context(0.05))
            worker.kill()
            await worker.becomes(SupervisorState.LOST)
            return [answer["z"].array.sum() for answer in answers]

    assert uvloop.run(served()) == [float(1 << 18)] * 4


async def test_two_workers_start_at_a_time_and_a_broken_one_delays_none(tmp_path):
    """Loads are written down as they begin and end: two overlap, never three, and all good ones get ready."""
    code = """
import os
import time

class Model:
    signature = {"inputs": [], "outputs": []}

    def load(self, path, options):
        note = os.open(options["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, b"+")
        while not os.path.exists(options["go"]):
            time.sleep(0.005)
        os.write(note, b"-")
        if "broken" in options:
            raise RuntimeError("broken")
"""
    notes, go = tmp_path / "notes", tmp_path / "go"
    starts, states = asyncio.Semaphore(2), {}
    supervisors = []
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        told = {"notes": str(notes), "go": str(go), **({"broken": "yes"} if number == 0 else {})}
        on_state = functools.partial(lambda key, state, _reason: states.update({key: state}), number)
        made = supervisor.WorkerSupervisor(written(folder, code, **told), "python", starts=starts, on_state=on_state)
        supervisors.append(made)
        await made.start()
    try:
        await eventually_async(lambda: notes.exists() and notes.read_text() == "++", 20)
        go.touch()
        wanted = {0: SupervisorState.FAILED, **dict.fromkeys(range(1, 5), SupervisorState.READY)}
        await eventually_async(lambda: states == wanted, 30)
    finally:
        await asyncio.gather(*(made.stop(0) for made in supervisors))
    running = itertools.accumulate(1 if note == "+" else -1 for note in notes.read_text())
    assert max(running) == 2
