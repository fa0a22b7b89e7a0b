"""Model jars in a worker of their own."""

import asyncio

import ml_dtypes
import numpy as np
import pytest

from tests.integration.jvm.frames_by_hand import ERROR, PREDICT, as_text, table, text
from tests.integration.jvm.jvm_worker import properties, running, source_of
from turnout.core.tensor import Datatype, Tensor, equal_bits

STRANGE_TEXT = [b"", b"a\x00b", "\U0001f600".encode(), b"\xff\xfe", b"x" * (1 << 20), None]


def strange(datatype):
    """Return elements that a careless worker would not bring back as they were."""
    if datatype is Datatype.BYTES:
        elements = np.empty(len(STRANGE_TEXT), dtype=object)
        elements[:] = STRANGE_TEXT
        return Tensor.of(elements)
    if datatype is Datatype.BOOL:
        values = np.array([True, False, True, True, False, False])
    elif datatype.is_float:
        values = np.array([-0.0, np.nan, np.inf, -np.inf, 0.1, 1e-7]).astype(datatype.dtype)
    else:
        info = np.iinfo(datatype.dtype)
        values = np.array([info.min, info.max, 0, 1, info.max // 2, info.max // 3], dtype=datatype.dtype)
    if datatype is Datatype.INT64:
        values[2] = 2**53 + 1
    return Tensor(datatype, values)


async def test_every_datatype_comes_back_bit_by_bit(tmp_path, java_jars, scratch):
    """All fourteen datatypes pass through a Java model unchanged, as views and built anew."""
    tensors = {datatype.lower(): strange(datatype) for datatype in Datatype}
    async with running(source_of(tmp_path, java_jars, "echo.jar", {}, scratch=scratch)) as worker:
        loaded = await worker.loaded()
        answered = await worker.client.predict(**{f"in_{name}": tensor for name, tensor in tensors.items()})
    declared = {name: (datatype, shape) for name, datatype, shape, _ in table(loaded.tensors["inputs"])}
    assert declared == {f"in_{datatype.lower()}": (str(datatype), "-1") for datatype in Datatype}
    assert {name for name, _, _, nullable in table(loaded.tensors["inputs"]) if nullable == "1"} == {"in_bytes"}
    for name, tensor in tensors.items():
        assert equal_bits(answered[f"out_{name}"], tensor), name
        assert equal_bits(answered[f"made_{name}"], tensor), name


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.BF16])
async def test_sixteen_bit_floats_round_as_numpy_does(tmp_path, java_jars, scratch, datatype):
    """Every 16-bit pattern is read as numpy reads it, and floats are rounded to nearest, ties to even."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(datatype.dtype)
    finite = patterns[~np.isnan(patterns.astype(np.float32))]
    async with running(source_of(tmp_path, java_jars, "echo.jar", {}, scratch=scratch)) as worker:
        await worker.loaded()
        rows = {f"in_{other.lower()}": Tensor(other, np.zeros(len(finite), other.dtype)) for other in Datatype}
        rows["in_bytes"] = Tensor.of(as_text([""] * len(finite)))
        rows[f"in_{datatype.lower()}"] = sent = Tensor(datatype, finite)
        answered = await worker.client.predict(**rows)
    assert equal_bits(answered[f"made_{datatype.lower()}"], sent)
    assert ml_dtypes.finfo(ml_dtypes.bfloat16).bits == 16


async def test_scala_jar_answers(tmp_path, scala_jar, scratch):
    """A model written in Scala is found in its jar and answers as its weights say."""
    (tmp_path / "weights.txt").write_text("0.1 0.5 -0.25 0.125\n")
    jars = [str(scala_jar / "model.jar"), str(scala_jar / "scala-library.jar")]
    async with running(source_of(tmp_path, tmp_path, ".", {"jars": jars}, scratch=scratch)) as worker:
        loaded = await worker.loaded()
        x = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
        answered = await worker.client.predict(x=Tensor.of(x))
    assert properties(loaded)["kind"] == "spi"
    assert properties(loaded)["class"] == "com.acme.Logit"
    assert properties(loaded)["engine"].startswith("java ")
    expected = 1 / (1 + np.exp(-(0.1 + x @ np.array([0.5, -0.25, 0.125]))))
    np.testing.assert_allclose(answered["probability"].array, expected, rtol=1e-15)


async def test_model_sees_nothing_of_the_worker(tmp_path, java_jars, scratch):
    """A model's class loader holds the JDK, the SPI and its own jars, and no class of the worker."""
    async with running(source_of(tmp_path, java_jars, "moody.jar", {}, scratch=scratch)) as worker:
        await worker.loaded()
        classes = ["dev.turnout.worker.Main", "dev.turnout.spi.Model", "com.acme.Echo", "java.sql.Date"]
        answered = await worker.client.predict(do=Tensor.of(as_text([f"sees:{name}" for name in classes])))
    assert text(answered["done"]) == ["no", "yes", "yes", "yes"]


async def test_samples_are_tried_at_load(tmp_path, java_jars, scratch):
    """Golden rows that the model refuses make the load fail; rows of another datatype, before a cast, are left out."""
    fine = {"do": Tensor.of(as_text(["fine"]))}
    bad = {"do": Tensor.of(as_text(["throw:sparks"]))}
    uncast = {"do": Tensor.of(np.array([1.0]))}
    for samples, reason in ((bad, "the samples fail: IllegalArgumentException: sparks"), (fine, ""), (uncast, "")):
        async with running(source_of(tmp_path, java_jars, "moody.jar", {}, scratch=scratch)) as worker:
            answer = await worker.load(samples=samples)
            assert (answer.type == ERROR) == bool(reason)
            assert answer.type != ERROR or answer.message == reason


async def test_failures_of_a_model_are_told_apart(tmp_path, java_jars, scratch):
    """The caller's fault, an exception, an error and a stack overflow each end their own call only."""
    async with running(source_of(tmp_path, java_jars, "moody.jar", {}, scratch=scratch)) as worker:
        await worker.loaded()
        cases = {
            "invalid:too tall": ("invalid_input", "tensor 'do': row 0: too tall"),
            "throw:sparks": ("model_fault", "IllegalArgumentException: sparks"),
            "error:smoke": ("model_fault", "Error: smoke"),
            "overflow": ("model_fault", "StackOverflowError"),
        }
        for asked, (code, message) in cases.items():
            answer = await worker.client.ask(PREDICT, {"do": Tensor.of(as_text([asked]))})
            assert (answer.type, answer.code, answer.message) == (ERROR, code, message)
        answered = await worker.client.predict(do=Tensor.of(as_text(["still here"])))
        assert text(answered["done"]) == ["still here"]


async def test_noise_on_standard_output_harms_nothing(tmp_path, java_jars, scratch):
    """What a model prints goes to the log, and answers stay whole."""
    async with running(source_of(tmp_path, java_jars, "moody.jar", {}, scratch=scratch)) as worker:
        await worker.loaded()
        answered = await worker.client.predict(do=Tensor.of(as_text(["print:noise"] * 20)))
        assert text(answered["done"]) == ["printed"] * 20
    assert "noise on standard output while loading" in worker.log.read_text()


async def test_inputs_are_held_against_the_signature(tmp_path, java_jars, scratch):
    """A wrong datatype, rank, name or a missing string is the caller's fault and names the tensor."""
    async with running(source_of(tmp_path, java_jars, "moody.jar", {}, scratch=scratch)) as worker:
        await worker.loaded()
        ask = Tensor.of(as_text(["fine"]))
        cases = [
            ({}, "tensor 'do': missing"),
            ({"do": Tensor.of(np.array([1.0]))}, "tensor 'do': datatype must be BYTES, got FP64"),
            ({"do": Tensor.of(as_text([["a", "b"]]))}, "tensor 'do': rank must be 1, got shape [1, 2]"),
            ({"do": Tensor.of(as_text([None]))}, "tensor 'do': element 0 is missing; this model takes none"),
            ({"do": ask, "more": ask}, "tensor 'more': unknown"),
        ]
        for tensors, message in cases:
            answer = await worker.client.ask(PREDICT, tensors)
            assert (answer.code, answer.message) == ("invalid_input", message)
        column = Tensor.of(as_text([["fine"]]))
        answered = await worker.client.predict(do=column, **{":outputs": Tensor.of(as_text(["done"]))})
        assert text(answered["done"]) == ["fine"]


@pytest.mark.parametrize(
    ("artifact", "options", "reason"),
    [
        (
            "both.jar",
            {},
            "more than one model in the jars: [com.acme.Echo, com.acme.Moody]; choose one by options.main",
        ),
        ("moody.jar", {"refuse": "yes"}, "IllegalStateException: weights are missing"),
        ("moody.jar", {"main": "com.acme.Gone"}, "options.main: ClassNotFoundException: com.acme.Gone"),
        ("moody.jar", {"main": "java.lang.Object"}, "options.main: java.lang.Object does not implement"),
    ],
)
async def test_jar_that_cannot_be_served_says_why(tmp_path, java_jars, scratch, artifact, options, reason):
    """A jar that cannot be loaded answers with one line, and the worker exits with status 1."""
    async with running(source_of(tmp_path, java_jars, artifact, options, scratch=scratch)) as worker:
        answer = await worker.load()
        assert (answer.type, answer.code) == (ERROR, "load_failed")
        assert answer.message.startswith(reason)
        assert await worker.stopped() == 1


async def test_several_cpus_run_several_predictions(tmp_path, java_jars, scratch):
    """With two CPUs a held prediction does not keep others waiting."""
    folder = tmp_path / "model"
    folder.mkdir()
    options = {"cpus": 2, "jars": [str(java_jars / "moody.jar")]}
    async with running(source_of(tmp_path, folder, ".", options, scratch=scratch)) as worker:
        await worker.loaded()
        held = worker.client.send(PREDICT, {"do": Tensor.of(as_text(["hold:gate"]))})
        answered = await worker.client.predict(do=Tensor.of(as_text(["quick"])))
        assert text(answered["done"]) == ["quick"]
        assert not held.done()
        (folder / "gate").touch()
        assert text((await asyncio.wait_for(held, 30)).tensors["done"]) == ["held"]
