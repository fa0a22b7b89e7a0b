"""What a version consists of: its declaration, its artifact, the files that belong to it."""

import os
from pathlib import Path

import pytest

from turnout.control.publish.tree import FolderProblem, files_below
from turnout.control.publish.version_folder import VersionFolder, read_version
from turnout.core.manifest import Runtime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty version folder."""
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    return folder


def fill(folder: Path, files: dict[str, str]) -> None:
    """Write files with their text, by relative path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder: Path, default: Path | None = None) -> VersionFolder:
    """Read a version folder of FOLDER `models`."""
    return read_version(folder, default, folder.parent.resolve())


def names(version: VersionFolder, folder: Path) -> list[str]:
    """Return the version's files, relative."""
    return [file.relative_to(folder).as_posix() for file in version.files]


def problem(folder: Path) -> str:
    """Return why a folder cannot be taken."""
    with pytest.raises(FolderProblem) as caught:
        read(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("a.onnx", Runtime.ONNX),
        ("a.ONNX", Runtime.ONNX),
        ("a.skops", Runtime.SKLEARN),
        ("a.joblib", Runtime.SKLEARN),
        ("a.pkl", Runtime.SKLEARN),
        ("a.jar", Runtime.JVM),
    ],
)
def test_the_one_artifacts_suffix_tells_the_runtime(folder, name, runtime):
    """Without `model.yaml`, other files beside the artifact do not matter."""
    (folder / name).write_text("bytes")
    fill(folder, {"README.md": "x", "_notes.onnx": "x"})
    version = read(folder)
    assert (version.artifact, version.runtime) == (name, runtime)
    assert names(version, folder) == [name]


def test_a_saved_pipeline_folder_is_an_artifact(folder):
    """A folder with metadata/ and stages/ is Spark's; its hidden checksums stay behind, `_SUCCESS` does not."""
    fill(
        folder,
        {
            "pipe/metadata/part.0": "{}",
            "pipe/metadata/_SUCCESS": "",
            "pipe/metadata/.part.0.crc": "x",
            "pipe/stages/0_lr/data.parquet": "x",
        },
    )
    version = read(folder)
    assert (version.artifact, version.runtime) == ("pipe", Runtime.JVM)
    assert "pipe/metadata/_SUCCESS" in names(version, folder)
    assert not any(".crc" in name for name in names(version, folder))


def test_the_version_folder_itself_may_be_the_pipeline(folder):
    """A PipelineModel saved as the model folder is artifact `.`."""
    fill(folder, {"metadata/part": "{}", "stages/0/part": "x"})
    assert read(folder).artifact == "."
    assert names(read(folder), folder) == ["metadata/part", "stages/0/part"]


def test_the_whole_folder_as_artifact_leaves_the_manifest_out(folder):
    """With `artifact: .` every file belongs, but `model.yaml`, hidden and `_` ones; code may start with `_` below."""
    manifest = "{runtime: python, artifact: ., options: {class: 'm:M'}}"
    fill(folder, {"model.yaml": manifest, "m.py": "x", "_draft.py": "x"})
    fill(folder, {"pkg/__init__.py": "", "pkg/__pycache__/x.pyc": "", "pkg/.hidden": ""})
    assert names(read(folder), folder) == ["m.py", "pkg/__init__.py"]


def test_golden_jars_and_weights_beside_the_artifact_belong(folder):
    """Files that the manifest names, and those named after the artifact, travel with it."""
    manifest = "{runtime: onnx, artifact: m.onnx, golden: golden.json}"
    fill(folder, {"model.yaml": manifest, "m.onnx": "x", "m.onnx.data": "w", "golden.json": "{}", "other": "x"})
    assert names(read(folder), folder) == ["golden.json", "m.onnx", "m.onnx.data"]


def test_listed_jars_are_not_taken_for_the_artifact(folder):
    """With jars listed, the artifact is what else tells the runtime, or the first jar."""
    fill(folder, {"model.yaml": "{runtime: jvm, options: {jars: [a.jar, b.jar]}}", "a.jar": "1", "b.jar": "2"})
    version = read(folder)
    assert version.artifact == "a.jar"
    assert names(version, folder) == ["a.jar", "b.jar"]
    fill(folder, {"pipe/metadata/p": "x", "pipe/stages/p": "x"})
    assert read(folder).artifact == "pipe"


def test_a_python_model_without_artifact_is_its_folder(folder):
    """The module beside `model.yaml` is enough."""
    fill(folder, {"model.yaml": "{runtime: python, options: {class: 'm:M'}}", "m.py": "x"})
    assert read(folder).artifact == "."


def test_the_model_folders_manifest_is_the_default(folder):
    """A version folder without its own declaration takes the model folder's, whole."""
    default = folder / "model.yaml"
    default.write_text("{limits: {in_flight: 3}}")
    fill(folder, {"1/m.onnx": "x", "2/m.onnx": "x", "2/model.yaml": "{batching: false}"})
    first = read_version(folder / "1", default, folder.parent.resolve())
    second = read_version(folder / "2", default, folder.parent.resolve())
    assert first.manifest.limits.in_flight == 3
    assert (second.manifest.limits.in_flight, second.manifest.batching) == (64, False)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no artifact: nothing here ends in .onnx, "),
        ({"v1/m.onnx": ""}, "or is a saved Spark PipelineModel; subfolder 'v1' is not a version number"),
        (
            {"model.yaml": "artifact: m.onnx", "v1/m.onnx": ""},
            "artifact 'm.onnx' is missing; subfolder 'v1' is not a version number",
        ),
        ({"a.onnx": "", "b.skops": ""}, "several artifacts (a.onnx, b.skops); say in model.yaml which"),
        ({"model.yaml": "artifact: m.onnx"}, "artifact 'm.onnx' is missing"),
        ({"model.yaml": "artifact: m.bin", "m.bin": ""}, "names no runtime, and 'm.bin' does not tell it"),
        ({"model.yaml": "golden: g.json", "m.onnx": ""}, "'g.json' is missing"),
        ({"model.yaml": "artifact: ../m.onnx"}, "model.yaml:1: artifact '../m.onnx': must be a path below"),
        ({"model.yaml": "artifact: /etc/passwd"}, "must be a path below"),
        ({"model.yaml": "model: 'a b'"}, "model.yaml:1: model 'a b': names are"),
        ({"model.yaml": "\nartefact: m"}, "model.yaml:2: unknown key 'artefact'; did you mean 'artifact'?"),
        ({"model.yaml": "options: {threads: 1}"}, "options need a runtime"),
        (
            {"model.yaml": "model: m\nruntime: remote\noptions: {url: 'grpc://box:1'}"},
            "model.yaml:2: runtime 'remote' is not in this release; it has jvm, onnx, python, sklearn",
        ),
        (
            {
                "model.yaml": "runtime: python\noptions: {class: 'm:M'}\nrename: {inputs: {a: b}}\nsignature:\n"
                "  inputs: [{name: a, datatype: FP64, shape: [-1]}, {name: b, datatype: FP64, shape: [-1]}]"
            },
            "model.yaml:3: rename.inputs: 'a' is presented as 'b', so no tensor is left to be called 'a' in signature",
        ),
        (
            {"model.yaml": "runtime: jvm\noptions: {standby: 1}", "m.jar": ""},
            "standby: spare workers are not in this release; write 0 or leave it out",
        ),
        ({"model.yaml": "runtime: onnx\noptions:\n  thread: 1"}, "3: unknown key 'thread'; did you mean 'threads'"),
        ({"model.yaml": "runtime: python\noptions: {class: nope}"}, "options: class must be module:Class, got 'nope'"),
        ({"model.yaml": "runtime: jvm\noptions: {jars: [../a.jar]}"}, "jar '../a.jar': must be a path below"),
        ({"model.yaml": "#" * ((1 << 20) + 1)}, "model.yaml: is over 1,048,576 bytes"),
        ({"model.yaml": "runtime: onnx", "m.pkl": ""}, "no artifact"),
    ],
)
def test_what_cannot_be_taken_is_named(folder, files, reason):
    """Each broken folder has one line of reason."""
    fill(folder, files)
    assert reason in problem(folder)


def test_a_manifest_that_is_not_text_is_named(folder):
    """Bytes that are not UTF-8 are refused."""
    (folder / "model.yaml").write_bytes(b"\xff\xfe")
    assert problem(folder) == "model.yaml: is not UTF-8"


def test_links_inside_the_folder_of_models_are_followed(folder):
    """Versions may share a file of FOLDER by a link."""
    (folder.parent / "shared.onnx").write_text("x")
    (folder / "m.onnx").symlink_to("../shared.onnx")
    assert names(read(folder), folder) == ["m.onnx"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../../outside.onnx"])
def test_links_that_leave_the_folder_of_models_are_refused(folder, target):
    """Nothing outside FOLDER is served by way of a link."""
    (folder.parents[1] / "outside.onnx").write_text("x")
    (folder / "m.onnx").symlink_to(target)
    assert problem(folder) == "m.onnx: is a link that leaves the folder of models"


def test_links_that_leave_from_deep_inside_are_refused(folder):
    """A folder artifact is searched to its bottom."""
    fill(folder, {"pipe/metadata/p": "x", "pipe/stages/p": "x"})
    (folder / "pipe/stages/evil").symlink_to("/etc")
    assert problem(folder) == "evil: is a link that leaves the folder of models"


def test_circles_and_dangling_links_are_refused(folder):
    """A link to its own parent, and a link to nothing, are named."""
    fill(folder, {"pipe/metadata/p": "x", "pipe/stages/p": "x"})
    (folder / "pipe/again").symlink_to("../pipe")
    assert problem(folder) == "again: is a link to a folder that holds it"
    (folder / "pipe/again").unlink()
    (folder / "pipe/again").symlink_to("nothing")
    assert problem(folder).startswith("again: cannot be followed (")


def test_pipes_are_refused(folder):
    """Only files and folders are read; a named pipe would hang whoever opens it."""
    os.mkfifo(folder / "pipe")
    with pytest.raises(FolderProblem, match="neither a file nor a folder"):
        files_below(folder, folder.parent.resolve())
