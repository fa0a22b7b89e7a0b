"""Callers that leave while queued, in short: `bench.campaign.disconnects` does it with ten thousand."""

from bench.campaign.disconnects import KINDS, Found, leave

CALLERS = 60


def test_no_run_starts_for_a_caller_that_left(tmp_path):
    """In every kind of process, over both doors, from every queue: each counts once, as cancelled."""
    for found in leave(list(KINDS), ["http", "grpc"], CALLERS, tmp_path).values():
        assert found == Found(callers=CALLERS, cancelled=CALLERS, started=found.started)
        assert found.started <= 8
