"""The options of a JVM version: what `model.yaml` may say under `options`, and which kind of model an artifact is.

It must not start a process.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.interface import LoadFailed, ModelSource
from turnout.core.manifest import JvmKind, JvmOptions

PIPELINE_CLASS: Final = "org.apache.spark.ml.PipelineModel"
_METADATA: Final = "metadata"


def read_options(source: ModelSource) -> tuple[JvmKind, JvmOptions]:
    """Return the kind of model and its options. Raises LoadFailed naming the option at fault."""
    try:
        options = msgspec.convert(dict(source.options), JvmOptions)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"options: {error}") from error
    if options.flags and not source.trusted:
        raise LoadFailed("options.flags: flags can run code, and this folder is not trusted")
    kind = options.kind or _kind_of(source.directory / source.artifact, options)
    if kind is JvmKind.SPARK:
        _refuse_unknown(source.options)
        _check_pipeline(source.directory / source.artifact)
    return kind, options


def model_jars(source: ModelSource, kind: JvmKind, options: JvmOptions) -> list[Path]:
    """Return the version's own jars. Raises LoadFailed where one is missing, or jars are not to be trusted."""
    artifact = source.directory / source.artifact
    jars = [source.directory / name for name in options.jars]
    if kind is JvmKind.SPI:
        jars = (sorted(artifact.glob("*.jar")) if artifact.is_dir() else [artifact]) + jars
    for jar in jars:
        if not jar.exists():
            raise LoadFailed(f"jar '{jar.name}' is not in the version's folder")
        if ":" in str(jar):
            raise LoadFailed(f"jar '{jar}': a path on the class path holds no colon")
    if kind is JvmKind.SPI and not jars:
        raise LoadFailed("no jar: the artifact is a folder without one, and options.jars names none")
    if jars and not source.trusted:
        raise LoadFailed("a jar runs code, and this folder is not trusted")
    return list(dict.fromkeys(jars))


def _kind_of(artifact: Path, options: JvmOptions) -> JvmKind:
    if artifact.suffix == ".jar":
        return JvmKind.SPI
    if (artifact / _METADATA).is_dir():
        return JvmKind.SPARK
    if options.jars or options.main or any(artifact.glob("*.jar")):
        return JvmKind.SPI
    raise LoadFailed(f"artifact '{artifact.name}' is neither a jar nor a saved Spark PipelineModel")


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = JvmOptions.__struct_fields__
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise LoadFailed(f"options.{name}: unknown" + (f"; did you mean '{near[0]}'?" if near else ""))


def _check_pipeline(artifact: Path) -> None:
    """Raise LoadFailed for a folder that holds something else, before a slow JVM says so less clearly."""
    parts = sorted((artifact / _METADATA).glob("part-*")) if (artifact / _METADATA).is_dir() else []
    try:
        saved = json.loads(parts[0].read_text().splitlines()[0])["class"]
    except (IndexError, KeyError, OSError, ValueError) as error:
        raise LoadFailed(f"'{artifact.name}' is no saved Spark PipelineModel: no metadata in it") from error
    if saved != PIPELINE_CLASS:
        raise LoadFailed(f"'{artifact.name}' is a saved {saved}; save it as the stage of a PipelineModel")
