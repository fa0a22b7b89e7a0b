"""What the death of a gateway process says of the versions whose calls it ran."""

import signal
from typing import ClassVar

import pytest

from adapters.marks import MarkedModel, ran
from gateway.parent.deaths import Deaths
from gateway.parent.quarantine import LOSSES, WITHIN_S, Suspects
from turnout.core.signature import Signature

HELD = {"a@1": "digest-a", "b@1": "digest-b"}
REASON = "quarantined: the process died 3 times while running it; load it again, or start Turnout again, to retry"


class _Clock:
    """Monotonic time that the test moves."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr("gateway.parent.deaths.clock.monotonic_s", lambda: self.now_s)


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still."""
    return _Clock(monkeypatch)


def _deaths(time, running, status=3, *, hung=False, apart_s=10.0):
    suspects = Suspects()
    said = {}
    for versions in running:
        deaths = Deaths(suspects, lambda _pid, versions=versions: versions)
        said = deaths.judge(1, status, {}, HELD, hung=hung)
        time.now_s += apart_s
    return suspects, said


def test_three_ends_within_a_minute_take_a_version_out(time):
    """The reason says what lifts it, and a pardon does; one more end takes three again."""
    suspects, said = _deaths(time, [["a@1"]] * LOSSES)
    assert said == {"a@1": REASON}
    assert suspects.refused(HELD) == said
    assert suspects.pardon("a")
    assert suspects.refused(HELD) == {}


@pytest.mark.parametrize(
    ("running", "status", "apart_s"),
    [
        ([["a@1"]] * 2, 3, 10.0),
        ([["a@1"]] * 9, 3, WITHIN_S),
        ([["a@1", "b@1"]] * 9, 3, 1.0),
        ([["a@1"]] * 9, 0, 1.0),
        ([["a@1"]] * 9, -signal.SIGKILL, 1.0),
        ([["a@1"]] * 9, -signal.SIGTERM, 1.0),
        ([["gone@1"]] * 9, 3, 1.0),
    ],
)
def test_what_is_no_proof_takes_nothing_out(time, running, status, apart_s):
    """Fewer ends, far apart, beside another version, orderly ones, kills from outside, versions that are not held."""
    suspects, said = _deaths(time, running, status, apart_s=apart_s)
    assert said == {}
    assert suspects.refused(HELD) == {}


def test_a_loop_that_hung_counts_though_the_parent_killed_it(time):
    """The parent's own SIGKILL is none from outside."""
    _, said = _deaths(time, [["a@1"]] * LOSSES, -signal.SIGKILL, hung=True)
    assert said == {"a@1": REASON}


def test_a_version_that_ran_alone_in_the_end_is_the_guilty_one(time):
    """Deaths beside another one count, but are no proof of either."""
    _, said = _deaths(time, [["a@1", "b@1"], ["a@1", "b@1"], ["a@1"]])
    assert said == {"a@1": REASON}


class _Model:
    """Answers whether its call was marked."""

    signature = Signature()
    properties: ClassVar = {}

    def __init__(self, scratch, pid):
        self._scratch, self._pid = scratch, pid

    def predict(self, inputs, outputs):
        """Look at the marks."""
        if inputs:
            raise ValueError("no such input")
        return ran(self._scratch, self._pid)

    def close(self):
        """Nothing."""


def test_calls_are_marked_while_they_run(tmp_path, monkeypatch):
    """Whoever looks into a process that is gone finds what ran; a call that ended, well or badly, is not among it."""
    monkeypatch.setattr("adapters.marks.os.getpid", lambda: 77)
    model = MarkedModel(_Model(tmp_path, 77), "a b/c@1", tmp_path)
    with pytest.raises(ValueError, match="no such input"):
        model.predict({"x": 1}, ())
    assert ran(tmp_path, 77) == []
    model = MarkedModel(_Model(tmp_path, 77), "a b/c@1", tmp_path)
    assert model.predict({}, ()) == ["a b/c@1"]
    assert ran(tmp_path, 77) == []
    model.close()


def test_a_mark_that_cannot_be_made_is_done_without(tmp_path, caplog):
    """A full disk under STATE takes no model out of service."""
    (tmp_path / "running").touch()
    model = MarkedModel(_Model(tmp_path, 1), "a@1", tmp_path)
    assert model.predict({}, ()) == []
    assert "calls of a@1 are not marked" in caplog.text
