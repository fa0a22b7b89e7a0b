"""The wall clock may jump: nothing that waits, expires or pauses may read it."""

import ast

from tests.architecture import sources

# What people or other machines read, and the age of files; each with a bound of its own on the monotonic clock.
WALL = {
    "gateway/doors/grpc_core.py",  # gRPC tells a deadline as wall time: it is read as time left at once
    "gateway/routing/recorder.py",  # stamps of the access log
    "gateway/serving/served_version.py",  # a statistic: when a version last answered
    "turnout/control/publish/folder.py",  # ages of files
    "turnout/control/publish/importer.py",
    "turnout/control/publish/settle.py",
    "turnout/control/registry/store.py",  # stamps of records
}
CLOCK = "turnout/core/clock.py"


def _trees():
    return [(sources.named(path), sources.parsed(path)) for path in sources.files(*sources.PACKAGES)]


def _uses(tree, name):
    return any(
        isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names} for node in ast.walk(tree)
    )


def _reads(tree):
    """Return the attributes of `time` and `datetime` that a file uses to tell the time of day."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    } & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}


def test_only_stamps_and_ages_of_files_read_the_wall_clock():
    """Deadlines, back-offs, breakers and heartbeats are instants of the monotonic clock."""
    assert {path for path, tree in _trees() if _uses(tree, "wall_s")} == WALL
    assert {path for path, tree in _trees() if _reads(tree)} == {CLOCK}
