"""Whether predicted uncertainty is honest: interval coverage, randomised PIT, levels, marginals."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from evaluation.contributions import check_probabilities, require_scored
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError
from mnar_recsys.rng import numpy_generator


def covered(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Return 1 where the true rating lies in [low, high], ends included, else 0, (n,).

    For ratings on levels the right share is not the nominal one: an interval between levels holds all the
    probability of the levels at its ends. Compare with ``interval_probability``.

    Raises
    ------
    DataError
        If a pair has no interval, the lengths differ, or an interval's ends are swapped.
    """
    actual = as_finite("true ratings", truth)
    lower, upper = require_scored("lower quantiles", low), require_scored("upper quantiles", high)
    check_same_length(truth=actual, low=lower, high=upper)
    if (lower > upper).any():
        place = int(np.flatnonzero(lower > upper)[0])
        raise DataError(
            f"lower quantiles must not exceed upper ones; found {lower[place]} and {upper[place]} at {place}"
        )
    return ((lower <= actual) & (actual <= upper)).astype(np.float64)


def interval_probability(
    levels: NDArray[np.float64], probabilities: ArrayLike, low: ArrayLike, high: ArrayLike
) -> NDArray[np.float64]:
    """Return the probability a model itself gives to [low, high], ends included, per pair, (n,)."""
    table = check_probabilities(probabilities)
    lower, upper = np.asarray(low)[:, None], np.asarray(high)[:, None]
    return np.asarray((table * ((lower <= levels) & (levels <= upper))).sum(axis=1))


def randomised_pit(level_index: NDArray[np.integer], probabilities: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Return P(level < true) + v P(level = true) with v uniform on (0, 1), per pair, (n,).

    Uniform on (0, 1) exactly when the probabilities are those of the data (Czado, Gneiting and Held,
    Biometrics 65, 2009): a hump in the middle means intervals too wide, heaps at the ends intervals too
    narrow.
    """
    table = check_probabilities(probabilities)
    check_same_length(level_index=level_index, probabilities=table[:, 0])
    rows = np.arange(len(table))
    at = table[rows, level_index]
    below = np.cumsum(table, axis=1)[rows, level_index] - at
    pit = below + numpy_generator(seed, "pit").random(len(table)) * at
    return np.asarray(np.clip(pit, 0.0, 1.0))


def pit_covered(pit: NDArray[np.float64], coverage: float = 0.9) -> NDArray[np.float64]:
    """Return 1 where the PIT lies in its central interval, else 0, (n,): its mean should be ``coverage``."""
    return (np.abs(pit - 0.5) <= coverage / 2).astype(np.float64)


def level_frequencies(
    levels: NDArray[np.float64], level_index: NDArray[np.integer], probabilities: ArrayLike
) -> pd.DataFrame:
    """Return the mean predicted probability of each level beside its share: ``level expected observed n``."""
    table = check_probabilities(probabilities)
    check_same_length(level_index=level_index, probabilities=table[:, 0])
    counts = np.bincount(level_index, minlength=len(levels))
    return pd.DataFrame({"level": levels, "expected": table.mean(axis=0), "observed": counts / len(table), "n": counts})


def total_variation(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return half the summed absolute difference of two marginals, (..., R) -> (...); 0 equal, 1 disjoint."""
    return np.asarray(np.abs(np.asarray(first) - np.asarray(second)).sum(axis=-1) / 2)


def wasserstein(levels: NDArray[np.float64], first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the rating points that must be moved, on average, to turn one marginal into the other.

    (..., R) -> (...), the area between the two distribution functions; unlike total variation it knows that a
    5 mistaken for a 1 is worse than for a 4.
    """
    gap = np.cumsum(np.asarray(first) - np.asarray(second), axis=-1)[..., :-1]
    return np.asarray((np.abs(gap) * np.diff(levels)).sum(axis=-1))
