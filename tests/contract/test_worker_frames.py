"""The codec of worker frames against the golden bytes of the protocol."""

import json
import struct
from pathlib import Path

import pytest

from adapters.worker.frames import BadFrame, FrameReader, FrameType, Part, pack, unpack

FOLDER = Path(__file__).parent / "worker_frames"
GOLDEN = {item["file"]: item for item in json.loads((FOLDER / "frames.json").read_text())}


def parts_of(item):
    """Return the tensors that frames.json describes."""
    if item["tensors"] is None:
        return None
    return [Part(t["name"], t["datatype"], tuple(t["shape"]), bytes.fromhex(t["hex"])) for t in item["tensors"]]


def read(data):
    """Return the one frame that `data` holds."""
    (frame,) = FrameReader().feed(data)
    return frame


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes_are_read(name):
    """Each golden frame is read as frames.json says."""
    item = GOLDEN[name]
    frame = read((FOLDER / name).read_bytes())
    assert (FrameType(frame.type).name, frame.id, frame.deadline_ms) == (item["type"], item["id"], item["deadline_ms"])
    if item["tensors"] is None:
        assert not frame.payload
    else:
        assert unpack(frame) == parts_of(item)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes_are_written(name):
    """What frames.json says is written as the golden bytes."""
    item = GOLDEN[name]
    pieces = pack(FrameType[item["type"]], item["id"], parts_of(item), item["deadline_ms"])
    assert b"".join(pieces) == (FOLDER / name).read_bytes()


def test_every_golden_file_is_described():
    """No golden file lies beside the list, and every frame type has one."""
    assert {path.name for path in FOLDER.glob("*.bin")} == GOLDEN.keys()
    assert {item["type"] for item in GOLDEN.values()} == set(FrameType.__members__)


def header(length=0, kind=8, version=1):
    """Return a header built by hand."""
    return struct.pack("<IBBHQII", length, kind, version, 0, 7, 0, 0)


def test_another_version_is_refused_from_the_header():
    """A frame of another protocol version is unsupported, whatever its payload."""
    with pytest.raises(BadFrame, match="version 2") as caught:
        list(FrameReader().feed(header(length=99, version=2)))
    assert (caught.value.code, caught.value.id) == ("unsupported", 7)


def test_a_frame_over_the_limit_is_refused_from_the_header():
    """A frame of more than 1 GiB is refused before its payload comes."""
    with pytest.raises(BadFrame, match="over the limit") as caught:
        list(FrameReader().feed(header(length=(1 << 30) + 1)))
    assert (caught.value.code, caught.value.id) == ("bad_frame", 7)


def test_frames_before_a_bad_one_are_kept():
    """What came before a bad header in the same read is still read."""
    seen = []
    with pytest.raises(BadFrame):
        seen.extend(FrameReader().feed(header() + header(version=9)))
    reader = FrameReader().feed(header() + header(version=9))
    assert next(reader).id == 7


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "cut off"),
        (struct.pack("<I", 1), "cut off"),
        (struct.pack("<IH", 1, 9) + b"x", "left"),
        (struct.pack("<IH", 1, 1) + b"\xff" + struct.pack("<BBQ", 13, 0, 8) + bytes(8), "garbled"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBQ", 0, 0, 0), "datatype code 0"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBQ", 15, 0, 0), "datatype code 15"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BB", 13, 33) + bytes(400), "rank 33"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBqQ", 13, 1, -1, 0), "negative axis"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBqQ", 13, 1, 2, 8) + bytes(8), r"FP64 \[2\] in 8 bytes"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBqQ", 14, 1, 3, 8) + bytes(8), "3 BYTES elements"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBqQ", 1, 1, 1, 1) + b"\x02", "BOOL bytes"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBQ", 2, 0, 1 << 62), "are left"),
        (struct.pack("<IH", 1, 1) + b"x" + struct.pack("<BBQ", 2, 0, 1) + b"a" + b"more", "left over"),
        (struct.pack("<I", 2) + 2 * (struct.pack("<H", 1) + b"x" + struct.pack("<BBQ", 2, 0, 1) + b"a"), "twice"),
    ],
)
def test_payloads_that_do_not_add_up_are_refused(payload, reason):
    """Each way in which a payload can fail to add up is a bad frame, with the request's id."""
    frame = read(header(length=len(payload), kind=5) + payload)
    with pytest.raises(BadFrame, match=reason) as caught:
        unpack(frame)
    assert caught.value.id == 7


def test_a_frame_over_the_limit_is_not_written():
    """A payload of more than 1 GiB raises instead of travelling."""
    half = memoryview(bytearray(1 << 29))
    parts = [Part(name, "UINT8", (1 << 29,), half) for name in ("a", "b")]
    with pytest.raises(ValueError, match="over the limit"):
        pack(FrameType.PREDICT, 1, parts)
