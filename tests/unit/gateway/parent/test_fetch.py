"""A version's bytes arrive whole and verified, or not at all."""

import hashlib
from contextlib import asynccontextmanager

import pytest

from gateway.parent import fetch as fetch_module
from gateway.parent.control_client import BlobMissing, ControlUnreachable
from gateway.parent.fetch import FetchFailed, VersionFiles
from turnout.core.manifest import Runtime
from turnout.core.snapshot import FileEntry, VersionEntry, blob_path


class FakeControl:
    """Serves blobs from memory; the first `failures` requests find nobody."""

    def __init__(self, blobs, failures=0):
        self.blobs = blobs
        self.failures = failures
        self.asked = []

    @asynccontextmanager
    async def blob(self, sha256):
        """Stream a blob in small pieces."""
        self.asked.append(sha256)
        if self.failures:
            self.failures -= 1
            raise ControlUnreachable("connection refused")
        if sha256 not in self.blobs:
            raise BlobMissing

        async def pieces():
            data = self.blobs[sha256]
            for start in range(0, len(data), 3):
                yield data[start : start + 3]

        yield pieces()


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


FILES = {"model.onnx": b"the model", "stages/0/part": b"a stage", "empty": b""}
BLOBS = {_sha256(data): data for data in FILES.values()}


def _entry(files=None, digest="sha256:abc"):
    entries = tuple(FileEntry(path, _sha256(data), len(data)) for path, data in (files or FILES).items())
    return VersionEntry("m", 1, digest, Runtime.ONNX, "model.onnx", entries)


def _content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_bytes_come_from_control_when_no_local_folder_has_them(tmp_path):
    """Every file lies under the version's digest, with the bytes that were registered."""
    directory = await VersionFiles(tmp_path, FakeControl(BLOBS)).fetch(_entry(), None)
    assert directory == tmp_path / "sha256-abc"
    assert _content(directory) == FILES


async def test_local_blobs_are_linked_and_control_is_not_asked(tmp_path):
    """On one machine the bytes are on the disk once."""
    blobs = tmp_path / "blobs"
    for sha256, data in BLOBS.items():
        (blobs / blob_path(sha256)).parent.mkdir(parents=True, exist_ok=True)
        (blobs / blob_path(sha256)).write_bytes(data)
    control = FakeControl({})
    (tmp_path / "versions").mkdir()
    directory = await VersionFiles(tmp_path / "versions", control).fetch(_entry(), blobs)
    assert _content(directory) == FILES
    assert control.asked == []
    assert (directory / "model.onnx").stat().st_ino == (blobs / blob_path(_sha256(b"the model"))).stat().st_ino


async def test_a_damaged_local_blob_is_fetched_instead(tmp_path):
    """What does not have its digest is never served."""
    blobs = tmp_path / "blobs"
    for sha256 in BLOBS:
        (blobs / blob_path(sha256)).parent.mkdir(parents=True, exist_ok=True)
        (blobs / blob_path(sha256)).write_bytes(b"rotten")
    (tmp_path / "versions").mkdir()
    directory = await VersionFiles(tmp_path / "versions", FakeControl(BLOBS)).fetch(_entry(), blobs)
    assert _content(directory) == FILES


@pytest.mark.parametrize(
    ("blobs", "reason"),
    [
        ({}, "the bytes of model.onnx are missing in the repository"),
        (dict.fromkeys(BLOBS, b"other"), "the bytes of model.onnx are not those that were registered"),
    ],
)
async def test_a_version_that_cannot_be_had_whole_leaves_nothing(tmp_path, blobs, reason):
    """Missing or other bytes refuse the version by the file's name; no half of it stays on the disk."""
    with pytest.raises(FetchFailed, match=reason):
        await VersionFiles(tmp_path, FakeControl(blobs)).fetch(_entry(), None)
    assert list(tmp_path.iterdir()) == []


async def test_an_interrupted_fetch_is_tried_again(tmp_path, monkeypatch):
    """Control that is gone for a moment costs a pause, control that stays away a reason."""
    monkeypatch.setattr("gateway.parent.fetch._PAUSE_S", 0.0)
    directory = await VersionFiles(tmp_path, FakeControl(BLOBS, failures=2)).fetch(_entry(), None)
    assert _content(directory) == FILES
    with pytest.raises(FetchFailed, match="cannot be fetched: connection refused"):
        await VersionFiles(tmp_path, FakeControl(BLOBS, failures=9)).fetch(_entry(digest="sha256:new"), None)


async def test_files_left_by_an_earlier_run_are_verified_once(tmp_path):
    """Changed bytes are fetched again; good ones are kept without asking."""
    await VersionFiles(tmp_path, FakeControl(BLOBS)).fetch(_entry(), None)
    (tmp_path / "sha256-abc" / "model.onnx").write_bytes(b"changed!!")
    directory = await VersionFiles(tmp_path, FakeControl(BLOBS)).fetch(_entry(), None)
    assert _content(directory) == FILES
    quiet = FakeControl({})
    assert await VersionFiles(tmp_path, quiet).fetch(_entry(), None) == directory
    assert quiet.asked == []


@pytest.mark.parametrize("path", ["../escape", "/etc/escape", "a/../../escape", ""])
async def test_file_names_cannot_lead_out_of_the_folder(tmp_path, path):
    """A name that climbs or is absolute refuses the version."""
    with pytest.raises(FetchFailed, match="leads out of the version's folder"):
        await VersionFiles(tmp_path / "versions", FakeControl(BLOBS)).fetch(_entry({path: b"the model"}), None)
    assert not (tmp_path / "escape").exists()


async def test_a_sweep_removes_what_nothing_holds(tmp_path):
    """Versions that left the snapshots leave the disk, and so does what was fetched by half; held ones stay."""
    files = VersionFiles(tmp_path, FakeControl(BLOBS))
    kept, gone = _entry(digest="sha256:kept"), _entry(digest="sha256:gone")
    await files.fetch(kept, None)
    await files.fetch(gone, None)
    (tmp_path / ".partial-sha256-half").mkdir()
    files.sweep([kept])
    assert [path.name for path in tmp_path.iterdir()] == ["sha256-kept"]
    assert _content(await files.fetch(gone, None)) == FILES


async def test_bytes_are_written_in_big_pieces(tmp_path, monkeypatch):
    """However small the chunks that control sends, threads write few times, and the bytes are the same."""
    monkeypatch.setattr("gateway.parent.fetch._PIECE_BYTES", 7)
    written = []
    add = fetch_module._add
    monkeypatch.setattr(fetch_module, "_add", lambda piece, *rest: (written.append(list(piece)), add(piece, *rest)))
    directory = await VersionFiles(tmp_path, FakeControl(BLOBS)).fetch(_entry({"model.onnx": b"the model"}), None)
    assert _content(directory) == {"model.onnx": b"the model"}
    assert written == [[b"the", b" mo", b"del"]]
