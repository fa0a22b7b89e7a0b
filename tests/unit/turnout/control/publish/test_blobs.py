"""The blob folder: bytes by digest, whole or absent."""

import hashlib

import pytest

from turnout.control.publish.blobs import BlobChanged, BlobFolder


def test_bytes_are_found_by_their_digest(tmp_path):
    """What was put in lies read-only where gateways link it from, once."""
    source = tmp_path / "m.onnx"
    source.write_bytes(b"weights")
    blobs = BlobFolder(tmp_path / "blobs" / "sha256")
    sha256, size = blobs.put(source)
    assert (sha256, size) == (hashlib.sha256(b"weights").hexdigest(), 7)
    path = blobs.find(sha256)
    assert path == blobs.root / sha256[:2] / sha256
    assert path.read_bytes() == b"weights"
    assert path.stat().st_mode & 0o777 == 0o444
    before = path.stat().st_mtime_ns
    assert blobs.put(source) == (sha256, size)
    assert path.stat().st_mtime_ns == before


def test_unknown_bytes_are_not_found(tmp_path):
    """A digest that nobody put is None."""
    assert BlobFolder(tmp_path).find("ab" * 32) is None


def test_a_cut_blob_is_mended(tmp_path):
    """A blob of the wrong size is written again from the source."""
    source = tmp_path / "m.onnx"
    source.write_bytes(b"weights")
    blobs = BlobFolder(tmp_path / "blobs")
    sha256, _ = blobs.put(source)
    path = blobs.find(sha256)
    path.chmod(0o644)
    path.write_bytes(b"wei")
    blobs.put(source)
    assert path.read_bytes() == b"weights"


def test_what_an_earlier_process_left_half_written_is_removed(tmp_path):
    """Only whole blobs outlive a kill."""
    (tmp_path / ".partial-abc").write_bytes(b"half")
    BlobFolder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_between_reading_and_copying_is_refused(tmp_path, monkeypatch):
    """The copy is hashed again, and nothing stays behind when it differs."""
    source = tmp_path / "m.onnx"
    source.write_bytes(b"weights")
    blobs = BlobFolder(tmp_path / "blobs")
    store = blobs._store

    def change_first(file, sha256):
        source.write_bytes(b"changed")
        store(file, sha256)

    monkeypatch.setattr(blobs, "_store", change_first)
    with pytest.raises(BlobChanged):
        blobs.put(source)
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []
