"""Reads one version's folder: its `model.yaml`, its artifact and the files that belong to it (DESIGN 5).

It decides what a version consists of; it hashes nothing and knows no version numbers.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from adapters import catalog
from turnout.control.publish.tree import FolderProblem, checked, entries, files_below
from turnout.core.document import Document, DocumentError, parse
from turnout.core.ids import NAME_RULE, is_name, parse_number
from turnout.core.manifest import OPTIONS, Manifest, Runtime
from turnout.core.signature import TensorSpec

MANIFEST: Final = "model.yaml"
MAX_MANIFEST_BYTES: Final = 1 << 20
SUFFIXES: Final[Mapping[str, Runtime]] = {
    ".onnx": Runtime.ONNX,
    ".skops": Runtime.SKLEARN,
    ".joblib": Runtime.SKLEARN,
    ".pkl": Runtime.SKLEARN,
    ".jar": Runtime.JVM,
}
_WHOLE_FOLDER: Final = "."


class VersionFolder(NamedTuple):
    """What a version is made of: its declaration and the files that hold its bytes."""

    manifest: Manifest
    runtime: Runtime
    artifact: str
    files: tuple[Path, ...]


def read_version(folder: Path, default: Path | None, boundary: Path) -> VersionFolder:
    """Read the version in `folder`; `default` is the model folder's own `model.yaml`, for want of one here.

    `boundary` is FOLDER, resolved. Raises FolderProblem.
    """
    found = entries(folder, boundary)
    source = found.get(MANIFEST, default)
    manifest = read_manifest(source) if source else Manifest()
    hint = _misnamed(found) if folder.parent == boundary else ""
    artifact, runtime = _artifact(folder, found, manifest, hint)
    files = _artifact_files(folder, artifact, boundary, hint)
    for name in (*manifest.options.get("jars", ()), *((manifest.golden,) if manifest.golden else ())):
        files.add(_beside(folder, name, boundary))
    return VersionFolder(manifest, runtime, artifact, tuple(sorted(files)))


def read_manifest(path: Path) -> Manifest:
    """Return a `model.yaml`. Raises FolderProblem with line and reason."""
    return _declared(path)[1]


def check_manifest(path: Path) -> None:
    """Read a `model.yaml` and look for the files that it names, in each version that it speaks for.

    Raises FolderProblem with line and reason.
    """
    document, manifest = _declared(path)
    jars = tuple(manifest.options.get("jars", ()))
    named: list[tuple[tuple[str | int, ...], str, str]] = [
        (("options", "jars", index), "jar", jar) for index, jar in enumerate(jars)
    ]
    named += [((key,), key, name) for key in ("artifact", "golden") if (name := getattr(manifest, key)) is not None]
    for place in _spoken_for(path.parent):
        for at, key, name in named:
            found = place / PurePosixPath(name)
            if not (found.exists() if key == "artifact" else found.is_file()):
                where = f"version {place.name}: " if place != path.parent else ""
                raise FolderProblem(str(document.error(at, f"{where}{key} '{name}' is missing")))


def _spoken_for(folder: Path) -> list[Path]:
    """Return the version folders for which a `model.yaml` in `folder` speaks: those without one of their own."""
    numbered = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_number(path.name)]
    return [path for path in numbered if not (path / MANIFEST).exists()] if numbered else [folder]


def _is_number(name: str) -> bool:
    try:
        parse_number(name)
    except ValueError:
        return False
    return True


def _declared(path: Path) -> tuple[Document, Manifest]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise FolderProblem(f"{path.name}: is over {MAX_MANIFEST_BYTES:,} bytes")
        document = parse(data.decode(), path.name)
        manifest = document.decode(Manifest)
        _check(document, manifest)
    except OSError as error:
        raise FolderProblem(f"{path.name}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FolderProblem(f"{path.name}: is not UTF-8") from error
    except DocumentError as error:
        raise FolderProblem(str(error)) from error
    return document, manifest


def is_pipeline(path: Path) -> bool:
    """Tell whether a folder is a saved Spark PipelineModel."""
    return (path / "metadata").is_dir() and (path / "stages").is_dir()


def _check(document: Document, manifest: Manifest) -> None:
    if manifest.model is not None and not is_name(manifest.model):
        raise document.error(("model",), f"model '{manifest.model}': {NAME_RULE}")
    for key, path in (("artifact", manifest.artifact), ("golden", manifest.golden)):
        if path is not None and not _stays_inside(path):
            raise document.error((key,), f"{key} '{path}': must be a path below the folder of {MANIFEST}")
    _check_names(document, "inputs", manifest.signature.inputs, manifest.rename.inputs)
    _check_names(document, "outputs", manifest.signature.outputs, manifest.rename.outputs)
    if manifest.runtime is None:
        if manifest.options:
            raise document.error(("options",), "options need a runtime beside them")
        return
    if not catalog.is_offered(manifest.runtime):
        known = ", ".join(sorted(catalog.table()))
        raise document.error(("runtime",), f"runtime '{manifest.runtime}' is not in this release; it has {known}")
    document.part("options").decode(OPTIONS[manifest.runtime])
    for index, jar in enumerate(manifest.options.get("jars", ())):
        if not _stays_inside(jar):
            raise document.error(("options", "jars", index), f"jar '{jar}': must be a path below the folder")


def _check_names(
    document: Document, half: str, declared: tuple[TensorSpec, ...] | None, rename: Mapping[str, str]
) -> None:
    """Refuse a declared name that is the runtime's name of another: two presented tensors cannot be one."""
    presented = {spec.name for spec in declared or ()}
    for name, new in rename.items():
        if {name, new} <= presented and name not in rename.values():
            reason = f"'{name}' is presented as '{new}', so no tensor is left to be called '{name}' in signature.{half}"
            raise document.error(("rename", half, name), f"rename.{half}: {reason}")


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


def _misnamed(found: Mapping[str, Path]) -> str:
    """Say of a model folder's first subfolder why it is no version, for where nothing else is found to serve."""
    name = next((name for name, path in found.items() if path.is_dir() and not _is_number(name)), None)
    return f"; subfolder '{name}' is not a version number" if name is not None else ""


def _artifact(folder: Path, found: Mapping[str, Path], manifest: Manifest, hint: str) -> tuple[str, Runtime]:
    if manifest.artifact is not None:
        artifact = str(PurePosixPath(manifest.artifact))
        runtime = manifest.runtime or _told_runtime(folder / artifact)
        if runtime is None:
            raise FolderProblem(f"{MANIFEST} names no runtime, and '{artifact}' does not tell it")
        return artifact, runtime
    jars = tuple(manifest.options.get("jars", ()))
    candidates = {name: kind for name, path in found.items() if name not in jars and (kind := _told_runtime(path))}
    if is_pipeline(folder):
        candidates = {_WHOLE_FOLDER: Runtime.JVM}
    if manifest.runtime is not None:
        candidates = {name: kind for name, kind in candidates.items() if kind is manifest.runtime}
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    if candidates:
        raise FolderProblem(f"several artifacts ({', '.join(candidates)}); say in {MANIFEST} which one it is")
    if jars:
        return jars[0], Runtime.JVM
    if manifest.runtime in (Runtime.PYTHON, Runtime.REMOTE):
        return _WHOLE_FOLDER, manifest.runtime
    known = ", ".join(SUFFIXES)
    raise FolderProblem(f"no artifact: nothing here ends in {known} or is a saved Spark PipelineModel{hint}")


def _told_runtime(path: Path) -> Runtime | None:
    if path.is_dir():
        return Runtime.JVM if is_pipeline(path) else None
    return SUFFIXES.get(path.suffix.lower())


def _artifact_files(folder: Path, artifact: str, boundary: Path, hint: str) -> set[Path]:
    if artifact == _WHOLE_FOLDER:
        inner = [path for name, path in entries(folder, boundary).items() if name != MANIFEST]
        return {file for path in inner for file in files_below(path, boundary)}
    path = folder / artifact
    if not path.exists() and not path.is_symlink():
        raise FolderProblem(f"artifact '{artifact}' is missing{hint}")
    files = set(files_below(path, boundary))
    if path.is_file():
        # Weights that a format keeps beside its file are named after it: model.onnx.data, model.onnx_data.
        beside = entries(path.parent, boundary).items()
        files |= {inner for name, inner in beside if name.startswith(path.name) and inner.is_file()}
    return files


def _beside(folder: Path, name: str, boundary: Path) -> Path:
    path = folder / PurePosixPath(name)
    if not path.is_file():
        raise FolderProblem(f"'{name}' is missing")
    return checked(path, boundary)
