"""Turnout as the first process of a container: signals, zombies, and an end that leaves nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.launch import ANY_PORT, descendants
from tests.processes import is_alive
from tests.running import Turnout
from tests.waiting import eventually

# Root makes a process namespace as it is; others need a user namespace around it.
NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
FIRST = [*NAMESPACE, "--pid", "--fork", "--mount-proc", "--kill-child"]

ORPHANAGE = """
import asyncio, ctypes, os, subprocess, sys
from gateway.parent.zombies import reap_orphans

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

async def main():
    # The shell ends at once and leaves its child to us, which ends a moment later.
    shell = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.2 & echo $!", stdout=subprocess.PIPE)
    orphan = int(await shell.stdout.readline())
    mine = await asyncio.create_subprocess_exec("sleep", "0.3")
    reaping = asyncio.create_task(reap_orphans(0.1))
    assert await shell.wait() == 0
    assert await mine.wait() == 0
    while os.path.exists(f"/proc/{orphan}"):
        await asyncio.sleep(0.02)
    reaping.cancel()
    print("reaped")

asyncio.run(asyncio.wait_for(main(), 20))
"""


def test_as_the_first_process_it_serves_and_ends_on_sigterm(folder, tmp_path):
    """In a container there is no init above it: SIGTERM still drains, exits 0 and leaves no process."""
    command = ["serve", str(folder), "--state", str(tmp_path / "state"), "--drain-seconds", "3", *ANY_PORT]
    server = Turnout(command, tmp_path, {}, prefix=FIRST)
    try:
        server.ready()
        assert server.predict("one").status_code == 200
        below = descendants(server.process.pid)
        (first,) = [pid for pid in below if f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()]
        os.kill(first, signal.SIGTERM)
        assert server.process.wait(30) == 0
        eventually(lambda: not [pid for pid in below if is_alive(pid)], 5)
    finally:
        server.process.kill()
        server.process.wait(10)
        server.process.stdout.close()
        server.process.stderr.close()


def test_orphans_are_reaped_and_own_children_are_left_to_their_owners():
    """A zombie that nobody waits for goes; the status of a child that somebody waits for is not taken away."""
    ran = subprocess.run([sys.executable, "-c", ORPHANAGE], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("reaped\n", "")
