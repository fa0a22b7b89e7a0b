"""Reading FOLDER: layouts, problems, digests, and copies that are still under way."""

import os
import threading
from pathlib import Path

import pytest

from turnout.control.publish.blobs import BlobFolder
from turnout.control.publish.folder import FLAT, Patience, read_folder


@pytest.fixture
def root(tmp_path) -> Path:
    """Return an empty FOLDER."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def put(root: Path, name: str, text: str = "x") -> Path:
    """Write a file below FOLDER."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(root: Path, seconds: float = 5.0, only=None, quiet_s: float = 0.01):
    """Read FOLDER; return models by folder, and problems of whole folders."""
    blobs = BlobFolder(root.parent / "blobs")
    models, problems = read_folder(root, blobs, Patience(seconds, threading.Event(), quiet_s), only)
    return {model.folder: model for model in models}, problems


def digest(root: Path) -> str:
    """Return the digest of the one version in FOLDER."""
    models, _ = read(root)
    (model,) = models.values()
    (version,) = model.versions
    return version.entry.digest


def test_flat_and_numbered_folders(root):
    """A flat folder has one version without a number; numbered ones keep theirs, in order."""
    put(root, "flat/m.onnx")
    for number in (10, 2):
        put(root, f"numbered/{number}/m.onnx", str(number))
    models, problems = read(root)
    assert problems == {}
    assert models["flat"].numbers == (FLAT,)
    assert models["numbered"].numbers == (2, 10)
    assert [version.entry.number for version in models["numbered"].versions] == [2, 10]


def test_names_that_are_no_utf_8_are_problems_that_can_be_published(root):
    """Of folders and of what lies in them; all else is read."""
    put(root, "good/m.onnx")
    for name in (b"\xff\xfe", b"m/\xfd.onnx"):
        (root / os.fsdecode(name)).mkdir(parents=True)
    models, problems = read(root)
    assert list(models) == ["good"]
    assert problems == {
        r"\xff\xfe": r"\xff\xfe: its name is not UTF-8",
        "m": r"\xfd.onnx: its name is not UTF-8",
    }


def test_bytes_go_to_the_blob_folder(root):
    """Every file of a version can be had by its digest."""
    put(root, "m/m.onnx", "weights")
    models, _ = read(root)
    (file,) = models["m"].versions[0].entry.files
    assert (file.path, file.size) == ("m.onnx", 7)
    assert BlobFolder(root.parent / "blobs").find(file.sha256).read_text() == "weights"


def test_what_is_ignored(root):
    """Loose files, hidden folders, folders with `_`, and other entries beside version folders."""
    for name in ("routes.yaml", ".git/m.onnx", "_old/m.onnx", "m/1/m.onnx", "m/README.md", "m/docs/a.onnx", "m/_2/a"):
        put(root, name)
    models, problems = read(root)
    assert problems == {}
    assert {name: model.numbers for name, model in models.items()} == {"m": (1,)}


def test_a_broken_folder_is_a_problem_and_the_others_go_on(root):
    """Each is named with its reason; one broken version does not take its neighbours with it."""
    put(root, "good/m.onnx")
    put(root, "bad/model.yaml", "runtim: onnx")
    put(root, "half/1/m.onnx")
    put(root, "half/2/notes.txt")
    put(root, "bad name/m.onnx")
    (root / "away").symlink_to("/etc")
    models, problems = read(root)
    assert problems["away"] == "away: is a link that leaves the folder of models"
    assert problems["bad name"].startswith("folder 'bad name': names are")
    assert len(models["good"].versions) == 1
    assert models["bad"].problems[FLAT] == "model.yaml:1: unknown key 'runtim'; did you mean 'runtime'?"
    assert [version.entry.number for version in models["half"].versions] == [1]
    assert models["half"].problems[2].startswith("no artifact")


def test_the_model_may_be_named_otherwise_than_its_folder(root):
    """All versions of a folder are of one model."""
    put(root, "fd/1/model.yaml", "model: flight-delay")
    put(root, "fd/1/m.onnx")
    put(root, "fd/2/m.onnx")
    put(root, "fd/3/model.yaml", "model: other")
    put(root, "fd/3/m.onnx")
    models, _ = read(root)
    assert models["fd"].model == "flight-delay"
    assert {version.entry.model for version in models["fd"].versions} == {"flight-delay"}
    assert models["fd"].problems == {3: "model.yaml says model 'other', another one says 'flight-delay'"}


def test_only_some_folders_are_read_on_demand(root):
    """Reading one model again does not look at the others."""
    put(root, "a/m.onnx")
    put(root, "b/m.onnx")
    assert set(read(root, only=frozenset({"b", "c"}))[0]) == {"b"}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("batching: false", "limits: {in_flight: 2}", True),
        ("", "metrics: {value: [0.5]}", True),
        ("", "lineage: {commit: abc}", True),
        ("", "artifact: m.onnx", True),
        ("", "runtime: onnx", True),
        ("", "signature: {inputs: []}", False),
        ("", "rename: {inputs: {a: b}}", False),
        ("", "cast: {inputs: {a: FP64}}", False),
        ("", "{runtime: onnx, options: {threads: 2}}", False),
        ("", "golden: golden.json", False),
    ],
)
def test_what_the_digest_covers(root, before, after, same):
    """Artifacts, runtime, signature, rename, cast, options and golden, and nothing else."""
    put(root, "m/m.onnx")
    put(root, "m/golden.json", "{}")
    put(root, "m/model.yaml", before)
    first = digest(root)
    put(root, "m/model.yaml", after)
    assert (digest(root) == first) is same


def test_the_digest_covers_the_bytes_and_the_golden_file(root):
    """Other bytes are another digest; equal bytes elsewhere are the same."""
    put(root, "m/m.onnx", "one")
    first = digest(root)
    put(root, "m/m.onnx", "two")
    second = digest(root)
    put(root, "m/m.onnx", "one")
    assert digest(root) == first != second


def test_a_file_that_somebody_writes_is_waited_for(root):
    """The version is taken when the writer is done, whole."""
    path = put(root, "m/m.onnx", "half")
    writer = path.open("a")
    closing = threading.Timer(0.3, lambda: (writer.write(" and half"), writer.close()))
    closing.start()
    models, _ = read(root)
    closing.join()
    (file,) = models["m"].versions[0].entry.files
    assert file.size == len("half and half")


def test_a_writer_without_end_is_a_problem_and_holds_up_nobody(root):
    """After the wait the folder is named; others have been read meanwhile."""
    put(root, "fine/m.onnx")
    with put(root, "slow/m.onnx").open("a"):
        models, _ = read(root, seconds=0.3)
    assert len(models["fine"].versions) == 1
    assert models["slow"].versions == ()
    assert models["slow"].problems == {FLAT: "still being written: m.onnx"}


def test_a_folder_without_its_artifact_yet_is_waited_for(root):
    """A copy that has brought only `model.yaml` so far is no broken folder."""
    put(root, "m/model.yaml", "artifact: m.onnx")
    copying = threading.Timer(0.1, put, (root, "m/m.onnx", "whole"))
    copying.start()
    models, _ = read(root, quiet_s=0.3)
    copying.join()
    assert models["m"].problems == {}
    assert models["m"].versions[0].entry.files[0].size == 5


def test_a_copiers_temporary_file_is_waited_for(root):
    """A hidden file that somebody writes beside the artifact means that the copy is not over."""
    put(root, "m/m.onnx")
    with put(root, "m/.m.onnx.x8Fj2").open("a"):
        models, _ = read(root, seconds=0.2)
    assert models["m"].problems == {FLAT: "still being written: .m.onnx.x8Fj2"}


def test_leaving_ends_the_wait(root):
    """A control process that is told to go does not sit out its patience."""
    leaving = threading.Event()
    leaving.set()
    with put(root, "slow/m.onnx").open("a"):
        models, _ = read_folder(root, BlobFolder(root.parent / "blobs"), Patience(60, leaving))
    assert models[0].problems[FLAT].startswith("still being written")


def test_a_folder_that_is_not_there_is_an_error(root):
    """FOLDER itself must exist."""
    with pytest.raises(FileNotFoundError):
        read(root / "absent")
