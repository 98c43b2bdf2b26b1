"""Features to the numbers a model sees: a float32 row, the same to the bit for one signal and for a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.features import MODEL_FEATURES, Kind

Columns = Mapping[str, ArrayLike]

CONTINUOUS = tuple(feature.name for feature in MODEL_FEATURES if feature.kind is Kind.CONTINUOUS)
CATEGORIES = tuple((feature.name, feature.categories) for feature in MODEL_FEATURES if feature.kind is Kind.CATEGORICAL)


def _scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation as scikit-learn's StandardScaler has them: NaN ignored, a constant scaled by 1."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    mean, variance = float(known.mean()), float(known.var())
    epsilon = float(np.finfo(np.float64).eps)
    rounding = known.size * epsilon * variance + (known.size * mean * epsilon) ** 2
    return mean, float(np.sqrt(variance)) if variance > rounding else 1.0


@dataclass(frozen=True)
class Encoder:
    """Standardised continuous features, then one column for each category; plain numbers throughout.

    NaN (or None) stays NaN, which XGBoost splits on; an unknown category is a row of zeros in its columns.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    categories: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def fit(cls, columns: Columns) -> Self:
        """Learn mean and scale from columns of equal length. Raises KeyError for a missing column."""
        scales = [_scale(np.asarray(columns[name], dtype=np.float64)) for name in CONTINUOUS]
        return cls(CONTINUOUS, tuple(mean for mean, _ in scales), tuple(scale for _, scale in scales), CATEGORIES)

    @classmethod
    def plain(cls) -> Self:
        """Scales nothing: for a learner that keeps means and deviations of its own."""
        return cls(CONTINUOUS, (0.0,) * len(CONTINUOUS), (1.0,) * len(CONTINUOUS), CATEGORIES)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the k encoded columns, in order; a category's is `feature=category`."""
        return self.names + tuple(f"{name}={category}" for name, known in self.categories for category in known)

    @cached_property
    def _slots(self) -> tuple[tuple[str, dict[str, int]], ...]:
        place = {column: index for index, column in enumerate(self.columns)}
        return tuple(
            (name, {category: place[f"{name}={category}"] for category in known}) for name, known in self.categories
        )

    @cached_property
    def _standard(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array(self.mean), np.array(self.scale)

    @cached_property
    def _pick(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        return itemgetter(*self.names)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """A table of n rows as a dense (n, k) matrix. Raises KeyError for a missing column."""
        mean, scale = self._standard
        values = np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in self.names])
        matrix = np.zeros((len(values), len(self.columns)), dtype=np.float32)
        matrix[:, : len(self.names)] = (values - mean) / scale
        for name, slots in self._slots:
            given = np.asarray(columns[name], dtype=object)
            for category, place in slots.items():
                matrix[:, place] = given == category
        return matrix

    def encode_one(self, row: Mapping[str, float | str | None]) -> NDArray[np.float32]:
        """One signal as a (1, k) matrix; other features are ignored. Raises KeyError for a missing one."""
        mean, scale = self._standard
        encoded = np.zeros((1, len(self.columns)), dtype=np.float32)
        encoded[0, : len(self.names)] = (np.array(self._pick(row), dtype=np.float64) - mean) / scale
        for name, slots in self._slots:
            place = slots.get(row[name])  # type: ignore[arg-type]  # None and numbers are simply not among the categories
            if place is not None:
                encoded[0, place] = 1
        return encoded

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "categories": {name: list(known) for name, known in self.categories},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        categories: Mapping[str, Sequence[str]] = stored["categories"]
        return cls(
            tuple(stored["names"]),
            tuple(stored["mean"]),
            tuple(stored["scale"]),
            tuple((name, tuple(known)) for name, known in categories.items()),
        )
