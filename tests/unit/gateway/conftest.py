"""What tests of the data plane share."""

import pytest

from tests.fakes import FakeModel, Plane


@pytest.fixture(params=[True, False], ids=["at once", "later"])
async def plane(request, tmp_path, monkeypatch):
    """A data plane without models; those that come answer within the caller's turn, or later."""
    monkeypatch.setattr(FakeModel, "at_once", request.param)
    plane = Plane(tmp_path, monkeypatch)
    yield plane
    await plane.close()
