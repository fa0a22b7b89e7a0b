"""Open files of a gateway process: as many as it may have, and the doors leave some to the others."""

import resource
import subprocess
import sys

from gateway.files import within_files
from gateway.limits import Limits


def test_the_doors_leave_files_to_others():
    """Where files are scarce there are fewer connections than asked for, and never none."""
    assert within_files(Limits(connections=5000), 65_536).connections == 5000
    assert within_files(Limits(connections=5000), 1024).connections == 341
    assert within_files(Limits(), 2).connections == 1


def test_a_process_takes_the_files_that_it_may_have():
    """The soft limit is raised to the hard one, in a process of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    script = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {most}))\n"
        "from gateway.files import allow_many_files\n"
        "print(allow_many_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(most)] * 2
