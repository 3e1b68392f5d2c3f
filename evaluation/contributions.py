"""What each (user, item) pair adds to a metric, before averaging: one array feeds value and interval."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError

# Probabilities from a float32 model sum to one only so closely.
_SUM_TOLERANCE = 1e-3


def squared_error(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Return (prediction - truth)^2 per pair, (n,), in squared rating points; lower is better."""
    return np.asarray(np.square(signed_error(truth, prediction)))


def absolute_error(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Return the absolute error per pair, (n,), in rating points; lower is better."""
    return np.asarray(np.abs(signed_error(truth, prediction)))


def signed_error(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Return prediction - truth per pair, (n,), in rating points; positive where the prediction is too high.

    Raises
    ------
    DataError
        If the lengths differ, a true rating is not finite, or a pair has no prediction (NaN).
    """
    actual = as_finite("true ratings", truth)
    predicted = require_scored("predictions", prediction)
    check_same_length(truth=actual, prediction=predicted)
    return predicted - actual


def log_likelihood(level_index: NDArray[np.integer], probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return log P(true level) per pair, (n,), in nats; higher is better.

    Minus infinity where the model ruled the true level out.

    Parameters
    ----------
    level_index
        Index of the true level, 0..R-1, (n,).
    probabilities
        Probability of each level, (n, R).

    Raises
    ------
    DataError
        If a pair has no probabilities, or they are not a distribution over the levels.
    """
    table = check_probabilities(probabilities)
    check_same_length(level_index=level_index, probabilities=table[:, 0])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(table[np.arange(len(table)), level_index]))


def require_scored(label: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return ``values`` as float64; refuse pairs without a score, which averaging would drop in silence.

    Raises
    ------
    DataError
        With the number of pairs that are NaN or infinite, and the first of them.
    """
    array = np.asarray(values, dtype=np.float64)
    unscored = ~np.isfinite(array) if array.ndim == 1 else ~np.isfinite(array).all(axis=-1)
    if unscored.any():
        raise DataError(
            f"{label} must score every test pair; {int(unscored.sum())} of {len(array)} are not finite, the "
            f"first at position {int(np.flatnonzero(unscored)[0])}. Score them first"
        )
    return array


def check_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return level probabilities as float64, (n, R), each row rescaled to sum to one exactly.

    Raises
    ------
    DataError
        If the shape is not (n, R), a value is not finite or negative, or a row's sum is not 1 within .001.
    """
    table = require_scored("level probabilities", probabilities)
    if table.ndim != 2:
        raise DataError(f"level probabilities must have shape (pairs, levels); found {table.shape}")
    total = table.sum(axis=1)
    bad = (table < 0.0).any(axis=1) | (np.abs(total - 1.0) > _SUM_TOLERANCE)
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"level probabilities must be at least 0 and sum to 1; found {table[place].tolist()} at position {place}"
        )
    return np.asarray(table / total[:, None])
