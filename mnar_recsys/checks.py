"""Checks on arrays from outside: label, found, expected, remedy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.errors import DataError


def check_same_length(**arrays: NDArray[np.generic]) -> None:
    """Raise DataError unless all arrays are one-dimensional and equally long."""
    for label, array in arrays.items():
        if array.ndim != 1:
            raise DataError(f"{label} must be one-dimensional; found shape {array.shape}")
    lengths = {label: len(array) for label, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{label} {length}" for label, length in lengths.items())
        raise DataError(f"arrays must be equally long; found {found}")


def as_finite(label: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return ``values`` as float64; raise DataError if one is not a finite number, naming the first such place."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{label} must be numbers; {error}") from error
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
        raise DataError(
            f"{label} must be finite; found {array.ravel()[place]} at position {place}. Remove or repair that entry"
        )
    return array
