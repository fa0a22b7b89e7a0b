"""When files count as at rest."""

from pathlib import Path

import pytest

from turnout.control.publish.settle import Seen, is_written, unsettled

NOW_S = 1_000_000.0


def seen(*ages_s: float) -> dict[Path, Seen]:
    """Return the states of files that changed so many seconds ago."""
    return {Path(f"/nowhere/{i}"): Seen(i, 1, 0, int((NOW_S - age_s) * 1e9)) for i, age_s in enumerate(ages_s)}


@pytest.mark.parametrize(
    ("ages_s", "rests"),
    [
        ((), True),
        ((1.5,), True),
        ((0.5,), False),
        ((90.0, 0.5), False),
        ((90.0, 1.5), True),
        # Three files that arrived 2 s apart: the next may still come.
        ((6.0, 4.0, 2.0), False),
        ((8.5, 6.5, 4.5), True),
        # One file of an old folder was changed: that is no pace.
        ((20.0, 1.5), True),
        ((20.0, 19.9, 1.5), True),
        # However slow it was, five seconds of rest are enough.
        ((50.0, 40.0, 5.5), True),
        ((50.0, 40.0, 4.5), False),
    ],
)
def test_quiet_is_as_long_as_the_copiers_pace_asks(ages_s, rests):
    """A second without change is rest, and more is asked where the latest changes came slowly."""
    assert (unsettled(seen(*ages_s), NOW_S - 60, now_s=NOW_S) is None) is rests


def test_folders_have_no_pace():
    """A folder changes with each file that is put into it."""
    states = seen(6.0, 4.0, 2.0)
    folders = {path: state._replace(is_folder=True) for path, state in states.items()}
    assert unsettled(folders, NOW_S - 60, now_s=NOW_S) is None


def test_the_path_at_fault_is_named():
    """The reason tells which file is still changing."""
    assert unsettled(seen(50.0, 0.1), NOW_S - 60, now_s=NOW_S) == "/nowhere/1"


def test_a_change_in_the_future_counts_from_when_we_looked_first():
    """A file system whose clock is ahead does not hold up an import for ever."""
    assert unsettled(seen(-100.0), NOW_S, now_s=NOW_S) is not None
    assert unsettled(seen(-100.0), NOW_S - 1.5, now_s=NOW_S) is None


def test_a_file_open_for_writing_is_told_from_one_that_is_only_read(tmp_path):
    """A writer shows however long it pauses; readers do not matter, and neither does a file that is gone."""
    path = tmp_path / "m.onnx"
    with path.open("wb"):
        assert is_written(path)
    with path.open("rb"):
        assert not is_written(path)
    assert not is_written(tmp_path / "absent")


def test_a_file_open_for_writing_is_not_at_rest(tmp_path):
    """However old its last change, it may be half."""
    path = tmp_path / "m.onnx"
    with path.open("wb"):
        later_s = path.stat().st_ctime + 3_600
        assert unsettled({path: Seen.of(path)}, 0.0, now_s=later_s) == str(path)
    assert unsettled({path: Seen.of(path)}, 0.0, now_s=later_s) is None
