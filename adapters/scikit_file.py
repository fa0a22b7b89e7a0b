"""Reads fitted scikit-learn estimators from files: .skops with a list of trusted types, pickles only where trusted.

A pickle runs code when it is read. A .skops file does not, but it can name types; each must be on a list below.
"""

import re
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import joblib
import msgspec
import skops.io

from adapters.interface import LoadFailed

# Reviewed for every folder: each only holds data or is a pure function used while fitting. None runs code of the
# file's choosing, opens a file, or follows unchecked positions in memory. skops itself trusts scikit-learn's public
# estimators, its loss functions and numpy's and scipy's ufuncs.
ALWAYS_TRUSTED: Final = (
    "numpy.dtype",  # a parameter of the encoders: without it no pipeline on strings loads
    "numpy.mean",  # pooling function of FeatureAgglomeration
    "sklearn.compose._column_transformer.make_column_selector",  # called while fitting only
    "sklearn.calibration._CalibratedClassifier",  # a classifier and its calibrators
    "sklearn.calibration._SigmoidCalibration",  # two numbers
    "sklearn.feature_selection._univariate_selection.chi2",  # score functions: called while fitting only
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",  # arrays and a kernel
    "sklearn.gaussian_process.kernels.ConstantKernel",  # kernels: parameters and pure functions of arrays
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",  # numbers left over from fitting
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn._loss.loss.HalfTweedieLoss",  # as the loss functions that skops trusts
    "sklearn._loss.loss.HalfTweedieLossIdentity",
)
# Data only, but scikit-learn follows the positions stored in them without checking: a crafted file can crash the
# process, though not run code. Taken where the folder is trusted (where a pickle would be, too).
TRUSTED_IN_TRUSTED_FOLDERS: Final = (
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._interpolate.interp1d",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
PICKLES: Final = (".joblib", ".pkl", ".pickle")
_PICKLED_VERSION: Final = re.compile(rb"_sklearn_version\W{0,12}?.{0,4}?(\d+\.\d+(?:\.\w+)*)", re.DOTALL)
_SKOPS_VERSION: Final = re.compile(r'"_sklearn_version".{0,200}?(\d+\.\d+(?:\.\w+)*)', re.DOTALL)
_REASON_CHARS: Final = 300
_reading = threading.Lock()  # warnings are caught by a setting of the whole process


class FittedFile(msgspec.Struct, frozen=True):
    """An estimator as read; `mismatch` names two versions of scikit-learn where another one wrote it, else ''."""

    estimator: Any
    mismatch: str


def served_by() -> str:
    """Return the version of the installed scikit-learn."""
    return version("scikit-learn")


def read_estimator(path: Path, *, trusted: bool, trusted_types: Sequence[str]) -> FittedFile:
    """Read the estimator in `path`. Raises LoadFailed with one line: refused, broken, or of another version."""
    if path.suffix == ".skops":
        return _read(path, lambda: _from_skops(path, trusted=trusted, trusted_types=trusted_types))
    if path.suffix not in PICKLES:
        raise LoadFailed(f"{path.name}: the suffix is none of .skops, {', '.join(PICKLES)}")
    if not trusted:
        raise LoadFailed(
            f"{path.name}: a pickle runs code when it is read, and this folder is not trusted; "
            "save the model with skops.io.dump, or serve the folder without --untrusted"
        )
    return _read(path, lambda: joblib.load(path))


def _read(path: Path, load: Callable[[], Any]) -> FittedFile:
    with _reading, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = load()
        except LoadFailed:
            raise
        except Exception as error:
            raise LoadFailed(_reason(path, error)) from error
    for warning in caught:
        fitted_with = getattr(warning.message, "original_sklearn_version", None)
        if fitted_with:
            return FittedFile(estimator, f"fitted with scikit-learn {fitted_with}, served by {served_by()}")
    return FittedFile(estimator, "")


def _from_skops(path: Path, *, trusted: bool, trusted_types: Sequence[str]) -> Any:
    allowed = {*ALWAYS_TRUSTED, *(TRUSTED_IN_TRUSTED_FOLDERS if trusted else ()), *(trusted_types if trusted else ())}
    unknown = skops.io.get_untrusted_types(file=path)
    refused = [name for name in unknown if name not in allowed]
    if not refused:
        return skops.io.load(path, trusted=unknown)
    if not trusted and set(refused) <= set(TRUSTED_IN_TRUSTED_FOLDERS):
        fix = "a crafted file of these can crash the process: serve the folder without --untrusted if you trust it"
    else:
        fix = "where you trust them, name them under options.trusted_types (a trusted folder only)"
    raise LoadFailed(f"{path.name}: types that are not trusted: {', '.join(sorted(refused))}; {fix}")


def _reason(path: Path, error: Exception) -> str:
    """Say why a file could not be read, naming both versions of scikit-learn where they differ."""
    if isinstance(error, ModuleNotFoundError):
        text = f"it needs the module '{error.name}', which is not installed here"
    elif isinstance(error, zipfile.BadZipFile | EOFError):
        text = f"it is cut off, or another kind of file ({error or type(error).__name__})"
    else:
        text = f"{type(error).__name__}: {error}"
    fitted_with = _version_in(path)
    if fitted_with and fitted_with != served_by():
        text = (
            f"fitted with scikit-learn {fitted_with}, which {served_by()} here cannot read; fit it again, "
            f"or serve it with {fitted_with} ({text})"
        )
    return f"{path.name}: {' '.join(text.split())[:_REASON_CHARS]}"


def _version_in(path: Path) -> str:
    """Return the scikit-learn version that the file's bytes mention, without reading it as objects."""
    try:
        if path.suffix == ".skops":
            with zipfile.ZipFile(path) as archive:
                found = _SKOPS_VERSION.search(archive.read("schema.json").decode(errors="replace"))
                return found[1] if found else ""
        data = path.read_bytes()
        match = _PICKLED_VERSION.search(zlib.decompress(data) if data.startswith(b"\x78") else data)
        return match[1].decode() if match else ""
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error):
        return ""
