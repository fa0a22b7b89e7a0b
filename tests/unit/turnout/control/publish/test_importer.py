"""FOLDER into the records, at the start and again."""

import pytest

from turnout.control.publish.blobs import BlobFolder
from turnout.control.publish.importer import Importer
from turnout.control.registry.store import SqliteRegistry


@pytest.fixture
def registry(tmp_path):
    """Return new records."""
    registry = SqliteRegistry(tmp_path / "registry.db")
    yield registry
    registry.close()


@pytest.fixture
def put(tmp_path):
    """Return a writer of files in FOLDER."""

    def put(name: str, text: str = "x") -> None:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return put


@pytest.fixture
def importer(tmp_path, registry) -> Importer:
    """Return an importer that needs little rest."""
    (tmp_path / "models").mkdir()
    return Importer(tmp_path / "models", BlobFolder(tmp_path / "blobs"), registry, 5.0, 0.01)


async def test_reading_all(importer, registry, put):
    """Versions are recorded with what was declared beside them; problems are told."""
    put("m/2/m.onnx")
    put("flat/f.onnx")
    put("broken/notes.txt")
    found = await importer.read_all()
    assert found.present == {"m": (2,), "flat": (1,)}
    assert set(found.versions) == set(registry.versions()) == {"m@2", "flat@1"}
    assert list(found.problems) == ["broken"]


async def test_reading_one_model_again(importer, put):
    """What stands elsewhere is left as it was, problems too; only a load brings an unloaded model back."""
    put("m/1/m.onnx")
    put("flat/f.onnx")
    put("broken/notes.txt")
    await importer.read_all()
    put("m/2/m.onnx")
    put("flat/f.onnx", "changed")
    found = await importer.read_models({"m"})
    assert found.present == {"m": (1, 2), "flat": (1,)}
    assert list(found.problems) == ["broken"]
    assert found.loaded == frozenset()
    assert (await importer.read_models({"flat"}, load=True)).loaded == {"flat"}
    assert "flat@2" in (await importer.read_models({"flat"})).versions


async def test_a_problem_goes_when_the_folder_is_mended(importer, put):
    """And comes for a folder that breaks, whose version of before stays present."""
    put("m/model.yaml", "artifact: m.onnx")
    assert list((await importer.read_all()).problems) == ["m"]
    assert importer.problems_of("m") == {"m": "artifact 'm.onnx' is missing"}
    put("m/m.onnx")
    assert (await importer.read_models({"m"})).problems == {}
    put("m/model.yaml", "artifakt: m.onnx")
    found = await importer.read_models({"m"})
    assert "unknown key 'artifakt'" in found.problems["m"]
    assert found.present == {"m": (1,)}


async def test_a_model_is_found_by_its_name_whatever_its_folder_is_called(importer, put):
    """The folder that brought it is read again."""
    put("folder/model.yaml", "model: fraud")
    put("folder/m.onnx", "1")
    await importer.read_all()
    put("folder/m.onnx", "2")
    found = await importer.read_models({"fraud"}, load=True)
    assert found.present == {"fraud": (2,)}
    put("folder/model.yaml", "model: spam")
    assert (await importer.read_models({"fraud"})).present == {"spam": (1,)}


async def test_a_second_folder_of_a_model_is_a_problem(importer, put):
    """Also when it appears later."""
    put("fraud/m.onnx", "1")
    await importer.read_all()
    put("again/model.yaml", "model: fraud")
    put("again/m.onnx", "2")
    found = await importer.read_models({"again"})
    assert found.present == {"fraud": (1,)}
    assert found.problems == {"again": "model 'fraud' is already that of folder 'fraud'"}


async def test_an_absent_folder_is_an_error(tmp_path, registry):
    """FOLDER itself must be there."""
    importer = Importer(tmp_path / "absent", BlobFolder(tmp_path / "blobs"), registry, 1.0, 0.01)
    with pytest.raises(FileNotFoundError):
        await importer.read_all()


async def test_comparing_named_versions_with_their_folders(importer, registry, put):
    """Bytes or `model.yaml` that changed under a number are told until they are as imported; nothing is taken in."""
    for number in (1, 2, 3):
        put(f"m/{number}/m.onnx")
    put("flat/f.onnx")
    assert (await importer.read_all()).changed == frozenset()
    known = dict(registry.versions())
    put("m/1/m.onnx", "changed")
    put("m/2/model.yaml", "limits: {in_flight: 1}")  # no part of the digest
    put("m/3/model.yaml", "cast: {inputs: {x: FP64}}")
    put("m/4/m.onnx")
    put("flat/f.onnx", "changed")
    named = ("m@1", "m@2", "m@3", "m@9", "flat@1", "nobody@1")
    assert await importer.compare(("m@2",)) == frozenset()
    assert await importer.compare(named) == {"m@1", "m@3"}
    assert registry.versions() == known
    put("m/1/m.onnx")
    assert await importer.compare(named) == {"m@3"}
    assert (await importer.read_models({"flat"})).changed == {"m@3"}
    assert (await importer.read_all()).changed == {"m@3"}
