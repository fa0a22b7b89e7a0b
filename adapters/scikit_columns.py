"""What fitted transformers tell of the columns they were fitted on: datatype, how a missing string looked, an example.

Reads fitted attributes only, by name, so that it needs no import of the runtime and also sees estimators of others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from turnout.core.tensor import Array, Datatype

_CHILDREN: Final = (
    "best_estimator_",
    "_preprocessor",
    "regressor_",
    "estimator_",
    "estimators_",
    "calibrated_classifiers_",
    "estimator",
)
_STRONGER: Final = {Datatype.FP64: 0, Datatype.INT64: 1, Datatype.BYTES: 2}


class Column(msgspec.Struct):
    """A column as its transformers know it.

    `missing` stands for a missing string: None or NaN, whichever the training data had. `boolean`: trained on booleans.
    """

    datatype: Datatype = Datatype.FP64
    missing: float | None = math.nan
    missing_known: bool = False
    boolean: bool = False
    example: bytes | int | float = 0.0

    def learn(self, values: Array) -> None:
        """Take note of values that the column can have (categories, imputed values)."""
        for value in values[::-1]:
            if value is None or (isinstance(value, float) and math.isnan(value)):
                self.sentinel(value)
        present = [value for value in values if value is not None and value == value]  # noqa: PLR0124  not NaN
        if not present:
            return
        datatype = _datatype(present)
        if _STRONGER[datatype] > _STRONGER[self.datatype] or (datatype is self.datatype and not self.example):
            self.datatype = datatype
            self.boolean = isinstance(present[0], bool | np.bool_)
            self.example = _example(datatype, present[0])

    def text(self) -> None:
        """Take note that the column holds text of any kind."""
        self.datatype, self.example = Datatype.BYTES, b""

    def sentinel(self, value: object) -> None:
        """Take note of what a missing value is; the transformer that sees the column first decides."""
        if not self.missing_known:
            self.missing_known = True
            self.missing = None if value is None else math.nan


def columns_of(estimator: object, names: Sequence[Any]) -> list[Column]:
    """Return what `estimator`, fitted on columns `names` in this order, tells of each."""
    found = {name: Column() for name in names}
    _look(estimator, list(names), found)
    return list(found.values())


def takes_documents(estimator: object) -> bool:
    """Tell whether an estimator is fitted on one sequence of texts (a vectoriser comes first)."""
    steps = getattr(estimator, "steps", None)
    if steps:
        return takes_documents(next((step for _, step in steps if not _passes(step)), None))
    inner = getattr(estimator, "best_estimator_", None)
    return takes_documents(inner) if inner is not None else hasattr(estimator, "build_analyzer")


def _look(step: Any, names: list[Any], found: Mapping[Any, Column]) -> bool:
    """Let a fitted step tell of the columns that reach it; return whether they leave it as they came."""
    if _passes(step):
        return True
    if hasattr(step, "steps"):
        return all(_look(inner, names, found) for _, inner in step.steps)
    if hasattr(step, "statistics_"):
        return _look_imputer(step, names, found)
    if hasattr(step, "build_analyzer"):
        for name in names:
            found[name].text()
    elif isinstance(getattr(step, "categories_", None), list) and len(step.categories_) == len(names):
        for name, categories in zip(names, step.categories_, strict=True):
            found[name].learn(categories)
    else:
        for inner, chosen in _parts(step, names):
            _look(inner, chosen, found)
    return False


def _parts(step: Any, names: list[Any]) -> Iterable[tuple[Any, list[Any]]]:
    """Yield the estimators inside a step, each with the columns that reach it."""
    if hasattr(step, "transformers_"):
        return [(inner, _pick(names, chosen)) for _, inner, chosen in step.transformers_]
    if hasattr(step, "transformer_list"):
        return [(inner, names) for _, inner in step.transformer_list]
    return [(child, names) for child in _children(step)]


def _look_imputer(step: Any, names: list[Any], found: Mapping[Any, Column]) -> bool:
    statistics = step.statistics_
    if len(statistics) != len(names):
        return False
    marker = getattr(step, "missing_values", math.nan)
    for name, value in zip(names, statistics, strict=True):
        if marker is None or (isinstance(marker, float) and math.isnan(marker)):
            found[name].sentinel(marker)
        if isinstance(value, str):
            found[name].learn(np.array([value], dtype=object))
    dropped = any(isinstance(value, float) and math.isnan(value) for value in statistics)
    return not dropped and not getattr(step, "add_indicator", False)


def _children(step: object) -> Iterable[object]:
    for attribute in _CHILDREN:
        child = getattr(step, attribute, None)
        if isinstance(child, list | tuple):
            yield from (item for item in child if not isinstance(item, tuple))
            return
        if child is not None and not isinstance(child, str | np.ndarray):
            yield child
            return


def _passes(step: object) -> bool:
    return step is None or isinstance(step, str)


def _pick(names: list[Any], chosen: Any) -> list[Any]:
    """Return the names that a column transformer's selection means: names, positions, a mask or a slice of them."""
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = names.index(chosen.start) if chosen.start is not None else 0
            stop = names.index(chosen.stop) + 1 if chosen.stop is not None else len(names)
            return names[start : stop : chosen.step]
        return names[chosen]
    if isinstance(chosen, int | np.integer):
        return [names[int(chosen)]]
    items = list(chosen)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [name for name, taken in zip(names, items, strict=True) if taken]
    return [item if isinstance(item, str) else names[int(item)] for item in items]


def _datatype(values: Sequence[object]) -> Datatype:
    if any(isinstance(value, str) for value in values):
        return Datatype.BYTES
    if all(isinstance(value, bool | np.bool_ | int | np.integer) for value in values):
        return Datatype.INT64
    return Datatype.FP64


def _example(datatype: Datatype, value: Any) -> bytes | int | float:
    if datatype is Datatype.BYTES:
        return str(value).encode()
    return int(value) if datatype is Datatype.INT64 else float(value)
