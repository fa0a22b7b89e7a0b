"""The embedded control plane as the parent keeps it."""

import os
from pathlib import Path

import pytest

from gateway.parent import child, control_process
from gateway.parent.control_process import ControlProcess
from gateway.parent.failure import CannotStart


async def test_a_start_that_fails_leaves_no_descriptor_open(monkeypatch):
    """The parent tries again for as long as it lives: each try must cost nothing."""

    async def fails(*_arguments, **_options):
        raise OSError("no memory")

    monkeypatch.setattr(control_process.child, "start", fails)
    process = ControlProcess(lambda port: b"", "127.0.0.1", 0, 0)
    before = _open_descriptors()
    with pytest.raises(CannotStart, match=r"no process can be started with .*: no memory$"):
        await process.start()
    assert _open_descriptors() == before


async def test_a_python_that_this_user_may_not_run_is_one_clear_line(monkeypatch, tmp_path):
    """As for a service user whose interpreter lies in another one's home: the line names both."""
    (tmp_path / "python").touch(mode=0o600)
    monkeypatch.setattr(child.sys, "executable", str(tmp_path / "python"))
    process = ControlProcess(lambda port: b"", "127.0.0.1", 0, 0)
    said = rf"with {tmp_path}/python: Permission denied; user {os.geteuid()} must be able to run it"
    with pytest.raises(CannotStart, match=said):
        await process.start()


def _open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))
