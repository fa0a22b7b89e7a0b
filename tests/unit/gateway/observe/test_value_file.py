"""Numbers in mapped files: prometheus-client reads what is written here, and numbers outlive their writer."""

import errno
import os
import struct

import numpy as np
import pytest
from prometheus_client.mmap_dict import MmapedDict

from gateway.observe.exposition import merged
from gateway.observe.value_file import Distribution, Number, ValueFile
from tests.full_disk import files_end_at


def values(path):
    """Return what prometheus-client reads."""
    return {key: value for key, value, _, _ in MmapedDict.read_all_values_from_file(path)}


def test_counts_are_read_by_prometheus_client(tmp_path):
    """A number written here is found by prometheus-client under its own key."""
    path = tmp_path / "counter_0.db"
    number = Number(ValueFile(path), "turnout_x_total", {"route": "a"}, "Help.")
    number.add()
    number.add(2.5)
    assert list(values(path).values()) == [3.5]
    (family,) = merged(tmp_path)
    assert [(sample.name, sample.labels, sample.value) for sample in family.samples] == [
        ("turnout_x_total", {"route": "a"}, 3.5)
    ]


def test_reopened_file_goes_on(tmp_path):
    """A process that takes over a slot counts on where the last one stopped."""
    path = tmp_path / "counter_0.db"
    first = ValueFile(path)
    Number(first, "turnout_x_total", {}, "Help.").add(5)
    first.close()
    second = ValueFile(path)
    again = Number(second, "turnout_x_total", {}, "Help.")
    again.add()
    assert again.get() == 6


def test_growing_file_keeps_every_number(tmp_path):
    """A file that outgrows its first size keeps old numbers and takes new ones."""
    path = tmp_path / "counter_0.db"
    file = ValueFile(path)
    found = [Number(file, "turnout_x_total", {"route": f"r{index}"}, "Help " * 20) for index in range(1000)]
    for index, number in enumerate(found):
        number.add(index)
    assert path.stat().st_size > 1 << 16
    assert [number.get() for number in found] == list(range(1000))
    assert sorted(values(path).values()) == list(range(1000))


def test_every_mapped_byte_is_reserved(tmp_path):
    """A store never meets a page that the disk has no room for: that would end the process."""
    path = tmp_path / "counter_0.db"
    path.write_bytes(struct.pack("<i", 8))
    os.truncate(path, 1 << 16)  # full of holes
    file = ValueFile(path)
    for index in range(1000):
        Number(file, "turnout_x_total", {"route": f"r{index}"}, "Help " * 20)
    stat = path.stat()
    assert stat.st_size > 1 << 16
    assert stat.st_blocks * 512 >= stat.st_size


def test_numbers_that_find_no_room_count_in_memory(tmp_path):
    """On a full disk old numbers stay in the file, new ones work unseen, and later ones are stored again."""
    path = tmp_path / "counter_0.db"
    errors = []
    file = ValueFile(path, errors.append)
    old = Number(file, "turnout_x_total", {"route": "old"}, "Help.")
    with files_end_at(1 << 16):
        lost = [Number(file, "turnout_x_total", {"route": str(index)}, "Help " * 1000) for index in range(20)][-1]
        lost.add(2)
        old.add()
    assert lost.get() == 2
    assert {error.errno for error in errors} == {errno.EFBIG}
    late = Number(file, "turnout_x_total", {"route": "late"}, "Help " * 1000)
    late.add(3)
    assert sorted(value for value in values(path).values() if value) == [1, 3]


@pytest.mark.parametrize("size", [0, 1 << 15])
def test_a_file_that_cannot_be_made_is_tried_again(tmp_path, size):
    """What is left of it is removed; a histogram in memory has all its buckets."""
    path = tmp_path / "histogram_0.db"
    errors = []
    file = ValueFile(path, errors.append)
    with files_end_at(size):
        lost = Distribution(file, "turnout_s", {}, "Help.", (0.1, 1.0))
    lost.observe(0.5)
    lost.observe_all(np.array([0.05, 7.0]))
    assert len(errors) == 1
    assert list(tmp_path.iterdir()) == []
    Distribution(file, "turnout_s", {}, "Help.", (0.1, 1.0)).observe(0.5)
    assert sorted(values(path).values()) == [0, 0, 0.5, 1]
    file.close()


def test_a_file_that_was_never_made_can_be_closed(tmp_path):
    """A process that counted nothing of a kind leaves no file of it."""
    ValueFile(tmp_path / "counter_0.db").close()
    assert list(tmp_path.iterdir()) == []


def test_distribution_counts_by_upper_bound(tmp_path):
    """A value falls into the first bucket whose bound it does not exceed."""
    path = tmp_path / "histogram_0.db"
    distribution = Distribution(ValueFile(path), "turnout_s", {}, "Help.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        distribution.observe(value)
    (family,) = merged(tmp_path)
    found = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert found == {
        ("turnout_s_bucket", "0.1"): 2,
        ("turnout_s_bucket", "1.0"): 3,
        ("turnout_s_bucket", "+Inf"): 4,
        ("turnout_s_count", None): 4,
        ("turnout_s_sum", None): pytest.approx(7.65),
    }


def test_bounds_must_ascend(tmp_path):
    """Bounds that do not ascend are a fault of the caller."""
    with pytest.raises(ValueError, match="ascend"):
        Distribution(ValueFile(tmp_path / "histogram_0.db"), "turnout_s", {}, "Help.", (1.0, 1.0))
