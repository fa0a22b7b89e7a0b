"""Options of a JVM version, and what kind of model an artifact is."""

import json
from pathlib import Path

import pytest

from adapters.interface import LoadFailed, ModelSource
from adapters.jvm.options import PIPELINE_CLASS, model_jars, read_options
from turnout.core.manifest import DeclaredSignature, JvmKind


def source(directory, artifact=".", *, trusted=True, **options):
    """Return what an adapter loads from."""
    return ModelSource(
        name="m@1",
        directory=directory,
        artifact=Path(artifact),
        declared=DeclaredSignature(),
        options=options,
        trusted=trusted,
        scratch=directory / "scratch",
    )


def save_pipeline(folder, saved=PIPELINE_CLASS):
    """Lay out the metadata of something that Spark saved."""
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "part-00000").write_text(json.dumps({"class": saved}) + "\n")


def refusal(call, *arguments):
    """Return why something is refused."""
    with pytest.raises(LoadFailed) as refused:
        call(*arguments)
    return str(refused.value)


def test_kind_is_told_by_the_artifact(tmp_path):
    """A jar is a model jar, a saved pipeline is Spark's, and options may say so where files do not."""
    save_pipeline(tmp_path / "pipeline")
    (tmp_path / "model.jar").touch()
    (tmp_path / "empty").mkdir()
    assert read_options(source(tmp_path, "model.jar"))[0] is JvmKind.SPI
    assert read_options(source(tmp_path, "pipeline"))[0] is JvmKind.SPARK
    assert read_options(source(tmp_path, "empty", main="com.acme.Model"))[0] is JvmKind.SPI
    assert refusal(read_options, source(tmp_path, "empty")) == (
        "artifact 'empty' is neither a jar nor a saved Spark PipelineModel"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"heap": "lots"}, "options: heap 'lots' is no size such as 512m or 2g"),
        ({"cpus": 0}, "options: Expected `int` >= 1 - at `$.cpus`"),
        ({"cpu": 2}, "options.cpu: unknown; did you mean 'cpus'?"),
        ({"kind": "sparc"}, "options: Invalid enum value 'sparc' - at `$.kind`"),
    ],
)
def test_bad_options_are_named(tmp_path, options, reason):
    """A wrong or unknown option of a pipeline is refused by name."""
    save_pipeline(tmp_path)
    assert refusal(read_options, source(tmp_path, **options)) == reason


def test_a_jar_may_have_options_of_its_own(tmp_path):
    """Options that the worker does not know belong to a jar's model."""
    (tmp_path / "model.jar").touch()
    assert read_options(source(tmp_path, "model.jar", threshold=0.5))[1].heap == "512m"


def test_only_pipelines_are_served(tmp_path):
    """A stage saved by itself, or a folder without readable metadata, is refused before a JVM starts."""
    save_pipeline(tmp_path / "stage", "org.apache.spark.ml.classification.LogisticRegressionModel")
    (tmp_path / "hollow" / "metadata").mkdir(parents=True)
    assert refusal(read_options, source(tmp_path, "stage")) == (
        "'stage' is a saved org.apache.spark.ml.classification.LogisticRegressionModel; "
        "save it as the stage of a PipelineModel"
    )
    assert refusal(read_options, source(tmp_path, "hollow")) == (
        "'hollow' is no saved Spark PipelineModel: no metadata in it"
    )


def test_jars_are_the_artifact_and_those_named(tmp_path):
    """The artifact comes first, then the jars that options name; a folder stands for the jars in it."""
    for name in ("a.jar", "b.jar", "lib.jar"):
        (tmp_path / name).touch()
    given = source(tmp_path, "b.jar", jars=["lib.jar"])
    assert model_jars(given, *read_options(given)) == [tmp_path / "b.jar", tmp_path / "lib.jar"]
    given = source(tmp_path, ".")
    assert [jar.name for jar in model_jars(given, *read_options(given))] == ["a.jar", "b.jar", "lib.jar"]
    given = source(tmp_path, "b.jar", jars=["gone.jar"])
    assert refusal(model_jars, given, *read_options(given)) == "jar 'gone.jar' is not in the version's folder"


def test_code_of_an_untrusted_folder_is_refused(tmp_path):
    """Neither jars nor flags of the JVM are taken from a folder that is not trusted; a plain pipeline is."""
    (tmp_path / "model.jar").touch()
    given = source(tmp_path, "model.jar", trusted=False)
    assert refusal(model_jars, given, *read_options(given)) == "a jar runs code, and this folder is not trusted"
    given = source(tmp_path, "model.jar", trusted=False, flags=["-Xint"])
    assert refusal(read_options, given) == "options.flags: flags can run code, and this folder is not trusted"
    save_pipeline(tmp_path / "pipeline")
    given = source(tmp_path, "pipeline", trusted=False)
    assert model_jars(given, *read_options(given)) == []
