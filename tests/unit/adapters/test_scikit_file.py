"""Files of scikit-learn estimators: what they may hold, and what is said when they cannot be read."""

import pickle
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from adapters import scikit_file
from adapters.interface import LoadFailed
from tests.unit.adapters.scikit_models import FRAME, MATRIX, NAMED, TARGET, flights, load, load_file, tensors
from turnout.core.errors import ModelFault
from turnout.core.signature import TensorSpec
from turnout.core.tensor import Datatype, Tensor


def test_pickles_are_refused_where_the_folder_is_not_trusted(tmp_path):
    """A pickle of an untrusted folder is refused without being read, with the way out."""

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was read",))

    for suffix in scikit_file.PICKLES:
        (tmp_path / f"model{suffix}").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(LoadFailed, match=r"a pickle runs code when it is read.*skops\.io\.dump"):
            load_file(tmp_path / f"model{suffix}", trusted=False)


def test_string_pipelines_need_no_trust(tmp_path):
    """The reviewed list lets a pipeline on strings load from an untrusted folder."""
    fitted = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(FRAME[["carrier"]], NAMED)
    assert load(tmp_path, fitted, trusted=False).signature.input("carrier").datatype is Datatype.BYTES


def test_types_that_can_crash_need_a_trusted_folder(tmp_path):
    """Trees are served from a trusted folder, and refused by name with the reason from another."""
    fitted = RandomForestClassifier(2, n_jobs=-1).fit(MATRIX, TARGET)
    model = load(tmp_path, fitted)
    assert model.model._estimator.n_jobs == 1
    with pytest.raises(LoadFailed, match=r"not trusted: sklearn\.tree\._tree\.Tree; a crafted file"):
        load(tmp_path, fitted, trusted=False)


def test_unknown_types_are_named(tmp_path):
    """A type that nobody reviewed is refused by name, unless a trusted folder's model.yaml names it."""
    fitted = make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()).fit(MATRIX, TARGET)
    (name,) = skops.io.get_untrusted_types(data=skops.io.dumps(fitted))
    with pytest.raises(LoadFailed, match=rf"not trusted: {name}; .*options\.trusted_types"):
        load(tmp_path, fitted)
    assert load(tmp_path, fitted, trusted_types=[name]).signature.inputs[0].name == "x"
    with pytest.raises(LoadFailed, match="trusted_types counts in a trusted folder only"):
        load(tmp_path, fitted, trusted=False, trusted_types=[name])


def test_the_reviewed_list_names_types_that_exist():
    """Each name on the lists can be found, so that none is there by mistake."""
    for name in (*scikit_file.ALWAYS_TRUSTED, *scikit_file.TRUSTED_IN_TRUSTED_FOLDERS):
        module, _, attribute = name.rpartition(".")
        __import__(module)
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


@pytest.mark.parametrize("suffix", [".skops", ".joblib", ".pkl"])
@pytest.mark.parametrize("cut", [0, 40, -60])
def test_broken_files_are_refused_in_one_line(tmp_path, suffix, cut):
    """A file that is cut off is refused in one line that names it."""
    load(tmp_path, LogisticRegression().fit(MATRIX, TARGET), suffix)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LoadFailed, match=rf"^model\{suffix}: ") as caught:
        load_file(path)
    assert "\n" not in str(caught.value)


def test_another_suffix_is_refused(tmp_path):
    """A file that is none of the known kinds is refused by its suffix."""
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(LoadFailed, match=r"the suffix is none of \.skops, \.joblib"):
        load_file(tmp_path / "model.onnx")


def test_unknown_options_are_refused(tmp_path):
    """An option that the runtime does not have is named."""
    with pytest.raises(LoadFailed, match="unknown field `trust`"):
        load(tmp_path, LogisticRegression().fit(MATRIX, TARGET), trust=True)


def aged(path, version="1.2.0"):
    """Make a file look as if another scikit-learn had written it."""
    here = scikit_file.served_by().encode()
    if path.suffix == ".skops":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name).replace(here, version.encode()) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    path.write_bytes(path.read_bytes().replace(here, version.encode().ljust(len(here), b"0")[: len(here)]))


@pytest.mark.parametrize("suffix", [".skops", ".joblib", ".pkl"])
def test_a_model_of_another_version_is_marked(tmp_path, suffix):
    """A file of another scikit-learn that still loads says both versions in its properties."""
    load(tmp_path, LogisticRegression().fit(MATRIX, TARGET), suffix)
    aged(tmp_path / f"model{suffix}")
    model = load_file(tmp_path / f"model{suffix}")
    assert model.properties["warning"] == f"fitted with scikit-learn 1.2.0, served by {scikit_file.served_by()}"


def test_a_skops_file_that_cannot_be_read_for_its_age_is_named(tmp_path):
    """A .skops file that names what this scikit-learn does not have says both versions."""
    load(tmp_path, LogisticRegression().fit(MATRIX, TARGET))
    path = tmp_path / "model.skops"
    aged(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["schema.json"] = members["schema.json"].replace(b"linear_model._logistic", b"linear_model._logistik")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(LoadFailed, match=r"linear_model\._logistik|fitted with scikit-learn 1\.2\.0"):
        load_file(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_version_that_cannot_be_read_is_named(tmp_path, packed):
    """A pickle that fails for its age says both versions instead of a KeyError or a missing module."""
    load(tmp_path, LogisticRegression().fit(MATRIX, TARGET), ".pkl")
    path = tmp_path / "model.pkl"
    aged(path)
    moved = path.read_bytes().replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model._logistik")
    path.write_bytes(zlib.compress(moved) if packed else moved)
    with pytest.raises(
        LoadFailed,
        match=r"fitted with scikit-learn 1\.2\.0, which .* here cannot read.*'sklearn\.linear_model\._logistik'",
    ):
        load_file(path)


def test_a_version_that_cannot_predict_is_named(tmp_path):
    """A model of another version that loads and then lacks what predicting needs is refused with both versions."""
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(MATRIX, TARGET)
    del fitted[0].statistics_
    fitted[0]._fill_dtype = None
    joblib.dump(fitted, tmp_path / "model.joblib")
    aged(tmp_path / "model.joblib")
    with pytest.raises(LoadFailed, match=r"it cannot predict: .* \(fitted with scikit-learn 1\.2\.0, served by"):
        load_file(tmp_path / "model.joblib")


def test_what_fails_later_names_the_versions_too(tmp_path):
    """A fault on a request of a model of another version carries both versions to the log."""
    load(tmp_path, LogisticRegression().fit(MATRIX, TARGET), ".joblib")
    aged(tmp_path / "model.joblib")
    model = load_file(tmp_path / "model.joblib")
    del model.model._estimator.coef_
    with pytest.raises(ModelFault, match=r"coef_.*fitted with scikit-learn 1\.2\.0"):
        model.predict({"x": Tensor.of(np.ones((1, 3)))}, ("label",))


def test_a_needed_module_is_named(tmp_path):
    """A pickle that needs a package which is not installed names it."""
    (tmp_path / "model.pkl").write_bytes(b"cnot_installed_here\nModel\n.")
    with pytest.raises(LoadFailed, match="needs the module 'not_installed_here', which is not installed here"):
        load_file(tmp_path / "model.pkl")


def test_samples_are_tried_where_they_are_given(tmp_path):
    """The first golden row is what a model is tried on."""
    fitted = flights(LinearRegression()).fit(FRAME, np.stack([TARGET, TARGET], 1))
    samples = tensors(load(tmp_path, fitted), FRAME)
    model = load(tmp_path, fitted, samples=samples)
    assert model.signature.outputs == (TensorSpec("value", Datatype.FP64, (-1, 2)),)


def test_the_reviewed_lists_are_documented():
    """Each type that is trusted stands in docs/reference/runtimes.md."""
    text = (Path(__file__).parents[3] / "docs" / "reference" / "runtimes.md").read_text()
    names = (*scikit_file.ALWAYS_TRUSTED, *scikit_file.TRUSTED_IN_TRUSTED_FOLDERS)
    assert [name for name in names if f"`{name}`" not in text] == []
