"""What tests of the data plane share."""

import pytest

from tests.fakes import Plane


@pytest.fixture
async def plane(tmp_path, monkeypatch):
    """A data plane without models."""
    plane = Plane(tmp_path, monkeypatch)
    yield plane
    await plane.close()
