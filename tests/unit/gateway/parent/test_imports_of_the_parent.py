"""What the parent must not load: it outlives engines that crash, and stays small."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["gateway.parent.main", "turnout.cli.serve"])
def test_the_parent_loads_no_engine(module):
    """Neither an engine nor gRPC is imported by the process that starts and watches all others."""
    engines = ("onnxruntime", "sklearn", "grpc", "pandas", "pyspark", "starlette")
    script = f"import sys, {module}; print([name for name in {engines} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
