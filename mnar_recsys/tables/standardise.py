"""The units of the model: every feature about 0, with a standard deviation of about 1."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Units:
    """x = centre + unit * value, ``centre`` and ``unit`` (P,) in the units of the table."""

    centre: NDArray[np.float64]
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, table: NDArray[np.float64], *, standardise: bool) -> Self:
        """Return mean and standard deviation of the observed values, (N, P) with NaN where missing; or 0 and 1.

        A feature that does not vary keeps its unit.
        """
        if not standardise:
            return cls(np.zeros(table.shape[1]), np.ones(table.shape[1]))
        spread = np.nanstd(table, axis=0)
        return cls(np.nanmean(table, axis=0), np.where(spread > 0, spread, 1.0))

    def to_model(self, table: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return values in the units of the model, 0 where they are missing: (n, P)."""
        values = (table - self.centre) / self.unit
        return np.where(np.isnan(values), 0.0, values).astype(np.float32)

    def to_table(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return values (..., P) in the units of the table."""
        return self.centre + self.unit * values.astype(np.float64)
