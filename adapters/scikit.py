"""Fitted scikit-learn estimators: the only module that imports scikit-learn itself.

Inputs are `x` for models fitted on unnamed columns, else one tensor a column; outputs are `label` and `probabilities`
or `value` (DESIGN 5). It must not guess: what has no place in that contract is refused by name.
"""

import asyncio
import contextlib
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import sklearn
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from adapters import scikit_file
from adapters.interface import Adapter, LoadFailed, ModelSource, SyncModel
from adapters.marks import MarkedModel
from adapters.scikit_columns import Column, columns_of, takes_documents
from turnout.core.errors import InvalidInput, ModelFault
from turnout.core.manifest import SklearnOptions
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensor import Array, Datatype, Tensor, TensorMap

MATRIX: Final = "x"
LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"
VALUE: Final = "value"

# Said on every request that holds an unseen category; the pipeline's author chose to allow it.
warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")


class ScikitModel(SyncModel):
    """A fitted estimator. Prediction only reads it, so calls may come from several threads at once."""

    def __init__(self, estimator: Any, columns: Mapping[str, Column] | None, fitted: scikit_file.FittedFile) -> None:
        self._estimator = estimator
        self._columns = columns
        self._mismatch = fitted.mismatch
        self._pandas = _pandas() if columns is not None else None
        self._transforms, self._last = _stages(estimator)
        self.properties: Mapping[str, str] = {
            "engine": f"scikit-learn {scikit_file.served_by()}",
            "estimator": type(self._last).__name__,
            **({"warning": fitted.mismatch} if fitted.mismatch else {}),
        }
        self.signature = Signature(inputs=self._inputs(), outputs=self._outputs())

    def predict(self, inputs: TensorMap, outputs: Sequence[str]) -> TensorMap:
        """Run the estimator once for all wanted outputs. Raises InvalidInput for BYTES that are not UTF-8."""
        rows = self._rows(inputs)
        try:
            for transform in self._transforms:
                with _checked_once(rows):
                    rows = transform(rows)
            with _checked_once(rows):
                return {name: self._answer(name, rows) for name in outputs}
        except Exception as error:
            if isinstance(error, ValueError):
                _refuse_missing(inputs, error)
            if not self._mismatch:
                raise
            raise ModelFault(f"{type(error).__name__}: {error} ({self._mismatch})") from error

    def close(self) -> None:
        """Drop the estimator."""
        del self._estimator, self._transforms, self._last

    def example(self) -> TensorMap:
        """Return one row that the estimator may have seen: zeros, and first categories."""
        if self._columns is None:
            spec = self.signature.inputs[0]
            empty: Any = b"" if spec.datatype is Datatype.BYTES else 0.0
            return {spec.name: Tensor(spec.datatype, np.full([1, *spec.shape[1:]], empty, spec.datatype.dtype))}
        return {
            name: Tensor(column.datatype, np.array([column.example], column.datatype.dtype))
            for name, column in self._columns.items()
        }

    def _answer(self, name: str, rows: Any) -> Tensor:
        if name == PROBABILITIES:
            return Tensor(Datatype.FP64, np.ascontiguousarray(self._last.predict_proba(rows), np.float64))
        predicted = np.asarray(self._last.predict(rows))
        if name == VALUE:
            return Tensor(Datatype.FP64, np.ascontiguousarray(predicted, np.float64))
        if predicted.dtype.kind in "biuf":
            return Tensor(Datatype.INT64, predicted.astype(np.int64))
        return Tensor.of(predicted)

    def _rows(self, inputs: TensorMap) -> Any:
        if self._columns is None:
            spec = self.signature.inputs[0]
            array = inputs[spec.name].array
            if spec.datatype is Datatype.BYTES:
                return _texts(spec.name, array, np.nan)
            return array if array.flags.aligned else array.copy()
        assert self._pandas is not None
        values = {name: self._values(name, column, inputs[name].array) for name, column in self._columns.items()}
        return self._pandas.DataFrame(values)

    def _values(self, name: str, column: Column, array: Array) -> Any:
        if column.datatype is Datatype.BYTES:
            assert self._pandas is not None
            # A plain array would become a string column, in which None turns into NaN.
            return self._pandas.Series(_texts(name, array, column.missing), dtype=object, copy=False)
        return _booleans(name, array) if column.boolean else array

    def _inputs(self) -> tuple[TensorSpec, ...]:
        if self._columns is not None:
            return tuple(
                TensorSpec(name, column.datatype, (-1,), nullable=column.datatype is Datatype.BYTES)
                for name, column in self._columns.items()
            )
        if takes_documents(self._estimator):
            return (TensorSpec(MATRIX, Datatype.BYTES, (-1,), nullable=True),)
        count = getattr(self._estimator, "n_features_in_", None)
        if count is None:
            raise LoadFailed("the estimator does not tell how many features it takes (n_features_in_)")
        kinds = {column.datatype is Datatype.BYTES for column in columns_of(self._estimator, range(count))}
        if len(kinds) > 1:
            raise LoadFailed("the estimator takes text and numbers in one unnamed array; fit it on a DataFrame")
        if kinds == {True}:
            return (TensorSpec(MATRIX, Datatype.BYTES, (-1, count), nullable=True),)
        return (TensorSpec(MATRIX, Datatype.FP64, (-1, count)),)

    def _outputs(self) -> tuple[TensorSpec, ...]:
        if is_classifier(self._estimator):
            classes = self._estimator.classes_
            label = TensorSpec(LABEL, _label_datatype(classes), (-1,))
            if not hasattr(self._estimator, "predict_proba"):
                return (label,)
            return (label, TensorSpec(PROBABILITIES, Datatype.FP64, (-1, len(classes))))
        if is_regressor(self._estimator):
            return (TensorSpec(VALUE, Datatype.FP64, (-1,)),)
        kind = type(self._last).__name__
        raise LoadFailed(f"{kind} is neither a classifier nor a regressor; only these have outputs of a known meaning")


class ScikitAdapter(Adapter):
    """Loads .skops files, and pickles where the folder is trusted."""

    runtime = "sklearn"

    async def load(self, source: ModelSource) -> SyncModel:
        """Read, check and try the estimator on one row. Raises LoadFailed with a one-line reason."""
        model = await asyncio.to_thread(_load, source)
        # A pickle may hold code that ends the process; what skops reads does not.
        return MarkedModel(model, source.name, source.scratch) if source.trusted else model


def _load(source: ModelSource) -> ScikitModel:
    try:
        options = msgspec.convert(dict(source.options), SklearnOptions)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"options: {error}") from error
    if options.trusted_types and not source.trusted:
        raise LoadFailed("options: trusted_types counts in a trusted folder only")
    path = source.directory / source.artifact
    fitted = scikit_file.read_estimator(path, trusted=source.trusted, trusted_types=options.trusted_types)
    estimator = fitted.estimator
    _check_fitted(estimator)
    _one_thread(estimator)
    names = getattr(estimator, "feature_names_in_", None)
    columns = None if names is None else dict(zip(map(str, names), columns_of(estimator, list(names)), strict=True))
    model = ScikitModel(estimator, columns, fitted)
    _try(model, source.samples)
    return model


def _check_fitted(estimator: Any) -> None:
    if not hasattr(estimator, "predict"):
        raise LoadFailed(f"the file holds a {type(estimator).__name__}, which has no predict")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise LoadFailed(f"the {type(estimator).__name__} is not fitted") from error
    except (TypeError, AttributeError) as error:
        raise LoadFailed(f"the file holds a {type(estimator).__name__}, which is no estimator") from error


def _one_thread(estimator: Any) -> None:
    """Turn off threads inside a call: they cost more than a row does, and sum forests in varying order."""
    wide = [name for name in estimator.get_params(deep=True) if name.split("__")[-1] == "n_jobs"]
    estimator.set_params(**dict.fromkeys(wide, 1))


def _try(model: ScikitModel, samples: TensorMap | None) -> None:
    """Predict one row: shapes that only an answer tells, and faults of another version, come out now."""
    names = [spec.name for spec in model.signature.outputs]
    rows = model.example()
    if samples is not None and all(name in samples for name in rows):
        rows = {name: samples[name].row_slice(0, 1) for name in rows}
    try:
        answer = model.predict(rows, names)
    except ModelFault as error:
        raise LoadFailed(f"it cannot predict: {error.message}") from error
    except Exception:  # noqa: BLE001  the row is ours: a pipeline may well refuse it
        return
    for name in (LABEL, VALUE):
        if name in answer and len(answer[name].shape) > 1 and name == LABEL:
            raise LoadFailed("the classifier answers several labels a row (multi-output); serve one model for each")
        if name in answer and len(answer[name].shape) > 1:
            model.signature = msgspec.structs.replace(
                model.signature, outputs=(TensorSpec(VALUE, Datatype.FP64, (-1, answer[name].shape[1])),)
            )


def _label_datatype(classes: Any) -> Datatype:
    if isinstance(classes, list):
        raise LoadFailed("the classifier answers several labels a row (multi-output); serve one model for each")
    array = np.asarray(classes)
    if array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.array_equal(array, np.trunc(array))):
        return Datatype.INT64
    if array.dtype.kind in "OUT" and all(isinstance(name, str) for name in array):
        return Datatype.BYTES
    raise LoadFailed(f"classes of {array.dtype} are neither whole numbers nor strings")


def _stages(estimator: Any) -> tuple[list[Callable[[Any], Any]], Any]:
    """Split a plain pipeline into its transforms and its last step, so that two outputs transform only once."""
    if hasattr(estimator, "best_estimator_"):
        return _stages(estimator.best_estimator_)  # what a finished search asks, too
    if type(estimator) is not Pipeline:
        return [], estimator
    before = [step.transform for _, step in estimator.steps[:-1] if step is not None and step != "passthrough"]
    return before, estimator.steps[-1][1]


def _checked_once(rows: Any) -> contextlib.AbstractContextManager[None]:
    """Return the surroundings of one step: scikit-learn need not look again for what is known of these rows."""
    known: contextlib.AbstractContextManager[None] = sklearn.config_context(
        assume_finite=_is_finite(rows), skip_parameter_validation=True
    )
    return known


def _is_finite(rows: Any) -> bool:
    """Tell whether these are numbers without a missing or infinite one; False where only scikit-learn can tell."""
    return isinstance(rows, np.ndarray) and rows.dtype.kind == "f" and bool(np.isfinite(rows).all())


def _refuse_missing(inputs: TensorMap, error: ValueError) -> None:
    """Raise InvalidInput where a caller sent a missing or infinite number: the estimator says that it cannot use it."""
    for name, tensor in inputs.items():
        if tensor.datatype.is_float and not np.isfinite(tensor.array).all():
            index = int(np.flatnonzero(~np.isfinite(tensor.array.reshape(-1)))[0])
            said = str(error).partition("\n")[0]
            raise InvalidInput(f"tensor '{name}': element {index} is missing or infinite: {said}") from error


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise LoadFailed("a model fitted on named columns needs pandas; install turnout[sklearn]") from error


def _booleans(name: str, array: Array) -> Array:
    flags = array.astype(np.bool_)
    wrong = np.flatnonzero(flags != array)
    if wrong.size:
        raise InvalidInput(f"tensor '{name}': element {wrong[0]} must be 0 or 1: the column holds booleans")
    return flags


def _texts(name: str, array: Array, missing: float | None) -> Array:
    """Return BYTES elements as text; a missing one becomes what the training data had for it."""
    flat = array.reshape(-1)
    texts = np.empty(flat.size, dtype=object)
    for index, element in enumerate(flat):
        try:
            texts[index] = missing if element is None else element.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"tensor '{name}': element {index} is not UTF-8 ({error.reason} at byte {error.start}); "
                "scikit-learn takes text only"
            ) from error
    return texts.reshape(array.shape)
