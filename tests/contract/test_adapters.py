"""Every adapter, run as the gateway runs it: signature, bit-exact tensors, wanted outputs, bad loads, many calls."""

import asyncio

import numpy as np
import pytest

from adapters.interface import LoadedModel, LoadFailed
from adapters.worker.supervisor import SupervisorState
from tests.contract.adapter_rows import NOT_TEXT, ROWS, TEXTS, bits
from tests.supervised import context, supervised
from turnout.core.errors import DeadlineExceeded, InvalidInput, NotReady
from turnout.core.tensor import Datatype, Tensor, equal_bits

ROW_PARAMETERS = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@pytest.fixture
def echoes(row, tmp_path):
    """The models that echo what the adapter takes."""
    return row.echoes(tmp_path)


def inputs_of(echo):
    """Return five rows for each input of an echo."""
    return {pair[0]: bits(datatype) for datatype, pair in echo.pairs.items()}


def wanted_of(echo):
    """Return the names of its outputs."""
    return tuple(pair[1] for pair in echo.pairs.values())


@ROW_PARAMETERS
async def test_the_signature_is_told(row, echoes):
    """A loaded model tells inputs and outputs with datatype and rows on axis 0, and which engine it runs on."""
    for echo in echoes:
        async with row.opened(echo.source) as model:
            assert isinstance(model, LoadedModel)
            for datatype, (x, y) in echo.pairs.items():
                for spec in (model.signature.input(x), model.signature.output(y)):
                    assert spec is not None
                    assert spec.datatype is datatype
                    assert spec.normalised().shape == (-1,)
            assert model.properties["engine"]


@ROW_PARAMETERS
async def test_tensors_come_back_bit_for_bit(row, echoes):
    """Every datatype that the adapter takes comes back with every bit, read-only views among them."""
    for echo in echoes:
        async with row.opened(echo.source) as model:
            inputs = {
                name: Tensor.from_raw(name, tensor.datatype, tensor.shape, bytes(tensor.raw()))
                for name, tensor in inputs_of(echo).items()
            }
            shaped = {name: _shaped(model, name, tensor) for name, tensor in inputs.items()}
            answer = await model.predict(shaped, wanted_of(echo), context())
            for x, y in echo.pairs.values():
                assert equal_bits(answer[y].reshaped(inputs[x].shape), inputs[x]), (x, answer[y].array)


@ROW_PARAMETERS
async def test_tensors_may_start_anywhere(row, echoes):
    """A view at an odd address of received bytes is read as it should be."""
    for echo in echoes:
        async with row.opened(echo.source) as model:
            inputs = {
                name: _shaped(
                    model, name, Tensor.from_raw(name, t.datatype, t.shape, memoryview(b"!" + bytes(t.raw()))[1:])
                )
                for name, t in inputs_of(echo).items()
            }
            answer = await model.predict(inputs, wanted_of(echo), context())
            for x, y in echo.pairs.values():
                assert equal_bits(answer[y].reshaped((5,)), inputs[x].reshaped((5,)))


@ROW_PARAMETERS
async def test_wanted_outputs_are_answered(row, echoes):
    """Asked for one output, the adapter answers at least that one."""
    for echo in echoes:
        async with row.opened(echo.source) as model:
            inputs = {name: _shaped(model, name, tensor) for name, tensor in inputs_of(echo).items()}
            for name in wanted_of(echo):
                assert name in await model.predict(inputs, (name,), context())


@ROW_PARAMETERS
async def test_text_that_is_not_utf8_is_kept_or_refused_by_name(row, echoes):
    """BYTES that are not UTF-8 come back as they are, or are InvalidInput naming tensor and element."""
    (echo,) = (echo for echo in echoes if Datatype.BYTES in echo.pairs)
    x, y = echo.pairs[Datatype.BYTES]
    elements = Tensor.of(np.array([*TEXTS[:4], NOT_TEXT], object))
    async with row.opened(echo.source) as model:
        call = model.predict(inputs_of(echo) | {x: elements}, (y,), context())
        if row.text_only:
            with pytest.raises(InvalidInput, match=f"tensor '{x}': element 4 is not UTF-8"):
                await call
        else:
            assert equal_bits((await call)[y], elements)


@ROW_PARAMETERS
async def test_many_calls_at_once_keep_apart(row, echoes):
    """Calls from many callers at once each get their own rows."""
    echo = echoes[0]
    async with row.opened(echo.source) as model:
        inputs = {name: _shaped(model, name, tensor) for name, tensor in inputs_of(echo).items()}
        slices = [{name: tensor.row_slice(0, 1 + n % 5) for name, tensor in inputs.items()} for n in range(64)]
        answers = await asyncio.gather(*(model.predict(part, wanted_of(echo), context()) for part in slices))
        for part, answer in zip(slices, answers, strict=True):
            for x, y in echo.pairs.values():
                assert equal_bits(answer[y].reshaped(part[x].shape), part[x])


@ROW_PARAMETERS
async def test_work_past_its_deadline_is_not_run(row, echoes):
    """A call whose deadline has passed is DeadlineExceeded."""
    async with row.opened(echoes[0].source) as model:
        with pytest.raises(DeadlineExceeded):
            await model.predict(inputs_of(echoes[0]), wanted_of(echoes[0]), context(0))


@ROW_PARAMETERS
async def test_a_closed_model_refuses(row, echoes):
    """After close a call is NotReady."""
    async with row.opened(echoes[0].source) as model:
        await model.close()
        with pytest.raises(NotReady):
            await model.predict(inputs_of(echoes[0]), wanted_of(echoes[0]), context())


@ROW_PARAMETERS
async def test_what_cannot_be_loaded_is_told_in_one_line(row, tmp_path):
    """A broken artifact is LoadFailed with a reason of one line that names it."""
    model = row.broken(tmp_path)
    if row.runtime in ("jvm", "python"):
        async with supervised(model, row.runtime, ready=False) as worker:
            await worker.becomes(SupervisorState.FAILED)
            reason = worker.reason
    else:
        with pytest.raises(LoadFailed) as caught:
            async with row.opened(model):
                pass
        reason = str(caught.value)
    assert row.told in reason
    assert "\n" not in reason
    assert len(reason) < 500


def _shaped(model, name, tensor):
    """Return a tensor in the rank that the runtime wants."""
    spec = model.signature.input(name)
    return tensor.reshaped((tensor.rows, 1)) if len(spec.shape) == 2 else tensor
