"""Numbers that describe users or items, aligned with a vocabulary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite
from mnar_recsys.errors import DataError


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of users or items.

    Attributes
    ----------
    names : tuple of str, F of them
        What each column means; unique.
    values : float32 array, (V, F)
        One row for each entry of the vocabulary, in its order; finite, read-only.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise DataError(f"features must have one column for each of {len(self.names)} names; found {values.shape}")
        if len(set(self.names)) != len(self.names):
            repeated = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(f"feature names must be unique; found {repeated!r} more than once. Rename one")
        frozen = as_finite("features", values).astype(np.float32)
        frozen.flags.writeable = False
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "values", frozen)

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def from_array(cls, values: ArrayLike, names: tuple[str, ...] | None = None) -> "FeatureTable":
        """Return a table of ``values``, (V, F), with the names ``f0``, ``f1``, ... where none are given."""
        array = np.asarray(values, dtype=np.float32)
        if names is None:
            names = tuple(f"f{column}" for column in range(array.shape[1] if array.ndim == 2 else 0))
        return cls(names, array)

    def take(self, rows: NDArray[np.integer[Any]]) -> "FeatureTable":
        """Return the features of the given rows; a row of -1 (an entry without features) becomes zeros."""
        known = rows >= 0
        values = np.zeros((len(rows), len(self.names)), dtype=np.float32)
        values[known] = self.values[rows[known]]
        return FeatureTable(self.names, values)
