"""How sure a metric is: bootstrap over users, paired differences, spread over seeds.

Ratings of one person are alike, so users are resampled, not ratings. Every interval says at which level it is
and how many values stand behind it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from mnar_recsys.checks import as_finite
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.rng import numpy_generator

# Resampling weights held at once, 64 MB: millions of test users must not need a (resamples, users) matrix.
_WEIGHTS_AT_ONCE = 8_000_000

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of means along the last axis, (..., M) -> (..., T), for example the root of the MSE."""


@dataclass(frozen=True)
class Interval:
    """A value with its uncertainty."""

    value: float
    low: float
    high: float
    level: float
    """Nominal coverage, for example .95."""
    n: int
    """Number of values averaged: pairs for a bootstrap, seeds for a spread."""

    def __str__(self) -> str:
        """Return ``0.857 [0.841, 0.873]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    contributions: ArrayLike,
    users: NDArray[np.generic],
    *,
    statistic: Statistic | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Interval]:
    """Return a percentile interval of each mean, or of functions of the means, resampling whole users.

    A resample draws as many users as there are, with replacement; its mean is (sum of contributions) /
    (number of pairs) over the users drawn, a ratio, because users differ in how many pairs they have.

    Parameters
    ----------
    contributions
        Per-pair values, (n,) or (n, M); all M columns meet the same resamples, so functions of several are
        coherent.
    users
        The user of each pair, (n,): any ids.
    statistic
        Function of the means, (..., M) -> (..., T). Default: the means themselves, T = M.
    level
        Nominal coverage.

    Raises
    ------
    DataError
        If a contribution is not finite, or the lengths differ.
    ConfigError
        If the level is not inside (0, 1) or there are no resamples.
    """
    _check_level(level)
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1; found {resamples}")
    table = as_finite("contributions", contributions)
    table = table[:, None] if table.ndim == 1 else table
    apply = statistic or _identity
    sums, sizes = user_sums(table, users)
    value = apply(table.mean(axis=0))
    means = [weights @ sums / (weights @ sizes)[:, None] for weights in _weights(len(sizes), resamples, seed)]
    replicates = apply(np.concatenate(means))
    low, high = np.quantile(replicates, (0.5 - level / 2, 0.5 + level / 2), axis=0)
    return [
        Interval(float(middle), float(lower), float(upper), level, len(table))
        for middle, lower, upper in zip(value, low, high, strict=True)
    ]


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    users: NDArray[np.generic],
    *,
    transform: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the interval of f(mean of first) - f(mean of second) on the same pairs and the same resamples.

    Parameters
    ----------
    first, second
        Contributions of two methods to the same pairs, in the same order, (n,).
    transform
        f, for example ``numpy.sqrt`` to compare RMSEs. Default: the mean itself.

    Raises
    ------
    DataError
        If the two are not equally long, or hold a value that is not finite.
    """
    both = [as_finite("contributions", values) for values in (first, second)]
    if both[0].shape != both[1].shape or both[0].ndim != 1:
        raise DataError(
            f"paired contributions must be two equally long vectors; found {both[0].shape}, {both[1].shape}"
        )
    function = transform or _identity

    def difference(means: NDArray[np.float64]) -> NDArray[np.float64]:
        transformed = function(means)
        return transformed[..., :1] - transformed[..., 1:]

    table = np.stack(both, axis=1)
    return bootstrap(table, users, statistic=difference, level=level, resamples=resamples, seed=seed)[0]


def seed_spread(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean over seeds with its t interval; with one seed nothing is known of the ends: NaN."""
    _check_level(level)
    array = as_finite("values over seeds", values)
    if array.ndim != 1 or not len(array):
        raise DataError(f"values over seeds must be a vector with at least one; found shape {array.shape}")
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), level, n)
    half = float(student_t.ppf(0.5 + level / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, level, n)


def user_sums(
    table: NDArray[np.float64], users: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each user's sums of the columns, (U, M), and number of pairs, (U,)."""
    if len(users) != len(table) or not len(table):
        raise DataError(f"each contribution needs a user, and one is needed; found {len(table)} and {len(users)} users")
    _, index = np.unique(users, return_inverse=True)
    sums = np.stack([np.bincount(index, weights=column).astype(np.float64) for column in table.T], axis=1)
    return sums, np.asarray(np.bincount(index), dtype=np.float64)


def _weights(n_users: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each user was drawn, (chunk, U), resamples rows in all."""
    rng = numpy_generator(seed, "bootstrap")
    chunk = max(1, _WEIGHTS_AT_ONCE // n_users)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(n_users, size=(rows, n_users)) + n_users * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_users)
        yield counts.reshape(rows, n_users).astype(np.float64)


def _identity(means: NDArray[np.float64]) -> NDArray[np.float64]:
    return means


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"the level of an interval must be between 0 and 1; found {level}")
