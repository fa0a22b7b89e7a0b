"""The embedded control plane as the parent keeps it."""

from pathlib import Path

import pytest

from gateway.parent import control_process
from gateway.parent.control_process import ControlProcess


async def test_a_start_that_fails_leaves_no_descriptor_open(monkeypatch):
    """The parent tries again for as long as it lives: each try must cost nothing."""

    async def fails(*_arguments, **_options):
        raise OSError("no memory")

    monkeypatch.setattr(control_process.child, "start", fails)
    process = ControlProcess(lambda port: b"", "127.0.0.1", 0, 0)
    before = _open_descriptors()
    with pytest.raises(OSError, match="no memory"):
        await process.start()
    assert _open_descriptors() == before


def _open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))
