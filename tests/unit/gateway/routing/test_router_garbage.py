"""What a refused request leaves behind: nothing that only the garbage collector can free, tensors least of all."""

import gc

import pytest

from tests.fakes import FakeModel, raising, request, route
from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.request import PredictRequest


def requests_in_garbage():
    """Return how many requests only the collector finds; it does not track them, but what holds them."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        held = [held for found in gc.garbage for held in gc.get_referents(found)]
        return sum(isinstance(found, PredictRequest) for found in held)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize(("x", "answer", "failure"), [((), None, InvalidInput), ((1.0,), ValueError("x"), ModelFault)])
async def test_refused_requests_need_no_collector(plane, x, answer, failure):
    """Whether the router finds the fault at once or the model fails later."""
    model = FakeModel()
    await plane.serve({"m@1": model}, route("m", "m@1"))
    if answer is not None:
        model.answer = raising(answer)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(failure):
                await plane.predict(request(x, inputs=None if x else {}))
        assert requests_in_garbage() == 0
    finally:
        gc.enable()
