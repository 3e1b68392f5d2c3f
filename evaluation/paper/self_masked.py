"""Complete tables with the paper's mask on them (section 4.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnar_recsys.errors import DataError


@dataclass(frozen=True)
class SelfMasked:
    """A complete table in standard units, and which of its values are hidden."""

    complete: NDArray[np.float64]
    """(N, P), every feature with mean 0 and standard deviation 1"""
    observed: NDArray[np.bool_]

    @classmethod
    def of(cls, table: NDArray[np.float64]) -> Self:
        """Standardise a complete table, then hide in its first floor(P / 2) features what is above the mean."""
        complete = (table - table.mean(0)) / table.std(0)
        observed = np.ones(complete.shape, dtype=bool)
        half = complete.shape[1] // 2
        observed[:, :half] = complete[:, :half] <= 0
        return cls(complete, observed)

    @property
    def incomplete(self) -> NDArray[np.float64]:
        """The table with NaN where a value is hidden."""
        return np.where(self.observed, self.complete, np.nan)

    def rmse(self, imputed: NDArray[np.float64]) -> float:
        """Return the root mean squared error of hidden values, in standard deviations of a feature."""
        return float(np.sqrt(np.square(imputed - self.complete)[~self.observed].mean()))


def read_complete(path: Path, target: str | None = None) -> NDArray[np.float64]:
    """Return the features of a CSV file with a header, without its target (by default the last column): (N, P).

    Raises
    ------
    DataError
        If the file cannot be read, a column is not numeric, constant or incomplete, or too few are left.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist. Check the path")
    try:
        frame = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: not a readable CSV file with a header ({error})") from error
    if target is not None and target not in frame.columns:
        raise DataError(f"{path}: no column '{target}'; found {', '.join(map(str, frame.columns))}")
    features = frame.drop(columns=frame.columns[-1] if target is None else target)
    if features.shape[1] < 2 or len(features) < 3:
        raise DataError(f"{path}: needs 2 features and 3 rows beside the target; found {features.shape[::-1]}")
    for name, column in features.items():
        if not pd.api.types.is_numeric_dtype(column):
            raise DataError(f"{path}, column '{name}': not numeric; drop or encode it")
        values = column.to_numpy(dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values)))
            raise DataError(f"{path}, row {row + 2}, column '{name}': not a finite number; the mask is put on here")
        if np.ptp(values) == 0:
            raise DataError(f"{path}, column '{name}': always {values[0]:g}; drop it")
    return features.to_numpy(dtype=np.float64)
