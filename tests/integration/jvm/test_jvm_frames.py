"""The JVM worker against the protocol's golden bytes: what it reads and writes is what the Python codec does."""

import json
from pathlib import Path

import pytest

from tests.integration.jvm.frames_by_hand import RESULT, Client
from tests.integration.jvm.jvm_worker import running, source_of

FRAMES = Path(__file__).parents[2] / "contract" / "worker_frames"
GOLDEN = {item["file"]: item for item in json.loads((FRAMES / "frames.json").read_text())}
HEADER = 24


def listed(item):
    """Return the tensors of a golden frame as the parrot's option lists them; those for the worker are left out."""
    tensors = [tensor for tensor in item["tensors"] if not tensor["name"].startswith(":")]
    shapes = [",".join(str(axis) for axis in tensor["shape"]) or "scalar" for tensor in tensors]
    return " ".join(f"{t['name']} {t['datatype']} {shape}" for t, shape in zip(tensors, shapes, strict=True))


async def exchange(tmp_path, java_jars, scratch, options, sent):
    """Return the bytes that a worker with the parrot answers to a frame."""
    async with running(source_of(tmp_path, java_jars, "parrot.jar", options, scratch=scratch)) as worker:
        await worker.loaded()
        client = await Client.connect(worker.socket)
        try:
            return await client.exchange(sent)
        finally:
            await client.close()


@pytest.mark.parametrize("file", ["predict_all_datatypes.bin"])
async def test_tensors_are_written_as_they_were_read(tmp_path, java_jars, scratch, file):
    """A RESULT with the tensors of a golden PREDICT has its payload, byte for byte, and its id."""
    sent = (FRAMES / file).read_bytes()
    answered = await exchange(tmp_path, java_jars, scratch, {"tensors": listed(GOLDEN[file])}, sent)
    assert answered[HEADER:] == sent[HEADER:]
    assert answered[:4] == sent[:4]
    assert answered[4] == RESULT
    assert answered[8:16] == sent[8:16]
    assert answered[16:HEADER] == bytes(8)


async def test_error_has_the_golden_bytes(tmp_path, java_jars, scratch):
    """The answer to a refused PREDICT is the golden ERROR."""
    options = {"tensors": "x FP64 -1", "complaint": "tensor 'x': row 0: must not be negative"}
    sent = (FRAMES / "predict_context.bin").read_bytes()
    assert await exchange(tmp_path, java_jars, scratch, options, sent) == (FRAMES / "error.bin").read_bytes()
