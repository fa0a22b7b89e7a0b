"""How many calls a model runs side by side, as its adapter tells; calls of one size tell nothing of another."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from adapters.interface import BoundedModel, ModelSource
from adapters.jvm.adapter import JvmAdapter
from adapters.threads import ThreadedModel
from adapters.worker.model import WorkerModel
from adapters.worker.python_adapter import PythonAdapter
from tests.unit.adapters.test_threads import Model, call
from turnout.core.manifest import DeclaredSignature
from turnout.core.tensor import Tensor


async def test_threads_run_no_more_calls_than_there_are_processors():
    """More would share the processors, and hold half of what one call could."""
    usable = len(os.sched_getaffinity(0))
    for threads, at_once in ((1, 1), (64, usable)):
        model = ThreadedModel(Model(), threads=threads)
        assert isinstance(model, BoundedModel)
        assert model.calls_at_once == at_once
        await model.close()


@pytest.mark.parametrize(
    ("adapter", "options", "at_once"),
    [(JvmAdapter(), {"kind": "spi", "cpus": 3}, 3), (JvmAdapter(), {"kind": "spi"}, 1), (PythonAdapter(), {}, 1)],
    ids=["jvm, 3 threads", "jvm", "python"],
)
async def test_workers_run_what_their_threads_do(adapter, options, at_once, monkeypatch):
    """A JVM worker predicts on as many threads as `cpus` says, a Python worker on one."""

    async def attached(_self):
        return SimpleNamespace(signature=Model.signature, properties={})

    monkeypatch.setattr(WorkerModel, "_attach", attached)
    source = ModelSource(
        name="m@1",
        directory=Path(),
        artifact=Path("model.jar"),
        declared=DeclaredSignature(),
        options=options,
        trusted=True,
        scratch=Path(),
        socket=Path("s"),
    )
    model = await adapter.load(source)
    assert model.calls_at_once == at_once


async def test_each_size_has_a_pace_of_its_own():
    """One row that is quick says nothing of the many rows of a gathered call: those are measured on a thread first."""
    inner = Model()
    model = ThreadedModel(inner)
    one, many = ({"x": Tensor.of(np.zeros(rows))} for rows in (1, 64))
    model._pace(one).inline = True
    await model.predict(one, ["x"], call())
    await model.predict(many, ["x"], call())
    await model.predict(one, ["x"], call())
    here = threading.current_thread()
    assert [thread is here for thread in inner.ran] == [True, False, True]
    await model.close()
