"""Multiple imputation and what it says of items, users and the population."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mnar_recsys.errors import ConfigError
from mnar_recsys.prediction.predictor import Predictor
from mnar_recsys.rng import numpy_generator

By = Literal["item", "user", "population"]
_PAIRS_AT_ONCE = 100_000


@dataclass(frozen=True)
class ImputedBlock:
    """Complete ratings of some users under M imputations."""

    users: NDArray[np.int64]
    """(b,) indices"""
    complete: NDArray[np.float32]
    """(M, b, P) given ratings where there are some, draws elsewhere"""
    rated: NDArray[np.bool_]
    """(b, P) where the rating is a given one"""


def impute_blocks(predictor: Predictor, draws: int, *, seed: int = 0) -> Iterator[ImputedBlock]:
    """Yield the users' complete rows in blocks, ``draws`` times imputed from p(x_mis | x_obs, s)."""
    if draws < 1:
        raise ConfigError(f"the number of draws must be at least 1; found {draws}")
    log = predictor.log
    matrix = log.to_scipy()
    step = max(1, _PAIRS_AT_ONCE // log.n_items)
    for number, start in enumerate(range(0, log.n_users, step)):
        users = np.arange(start, min(start + step, log.n_users))
        items = np.tile(np.arange(log.n_items), len(users))
        rng = numpy_generator(seed, "impute", number)
        drawn = predictor.draw(np.repeat(users, log.n_items), items, draws, rng)
        complete = drawn.reshape(draws, len(users), log.n_items)
        given = matrix[users].tocoo()
        rated = np.zeros((len(users), log.n_items), dtype=bool)
        rated[given.row, given.col] = True
        complete[:, given.row, given.col] = given.data
        yield ImputedBlock(users, complete, rated)


def rubin(
    estimates: NDArray[np.float64], variances: NDArray[np.float64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pool M completed-data estimates by Rubin's rules (Rubin 1987, ch. 3): (M, n), (M, n) -> mean, lower, upper (n,).

    Total variance is the mean variance plus (1 + 1/M) times the variance between imputations; the interval is
    Student-t with Rubin's degrees of freedom.
    """
    m = len(estimates)
    if m < 2:
        raise ConfigError(f"Rubin's rules need at least 2 imputations; found {m}")
    within = variances.mean(0)
    between = (1 + 1 / m) * estimates.var(0, ddof=1)
    total = within + between
    with np.errstate(divide="ignore"):
        freedom = (m - 1) * (1 + np.divide(within, between, where=between > 0, out=np.full_like(within, np.inf))) ** 2
    half = stats.t.ppf((1 + level) / 2, np.minimum(freedom, 1e9)) * np.sqrt(total)
    mean = estimates.mean(0)
    return mean, mean - half, mean + half


def impute_pairs(
    predictor: Predictor, users: NDArray[np.int64], items: NDArray[np.int64], draws: int, *, seed: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Impute given unrated cells: indices inside the log, sorted by user, (n,) -> users, items (b,), ratings (M, b).

    A user's cells stay in one block, so that a draw of them is a joint one.
    """
    if draws < 1:
        raise ConfigError(f"the number of draws must be at least 1; found {draws}")
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    # Each user's first pair, thinned to blocks of about the wanted size.
    _, first = np.unique(starts // _PAIRS_AT_ONCE, return_index=True)
    bounds = np.append(starts[first], len(users))
    for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
        part = slice(start, stop)
        rng = numpy_generator(seed, "impute pairs", number)
        yield users[part], items[part], predictor.draw(users[part], items[part], draws, rng)


def summarize(
    predictor: Predictor,
    by: By,
    *,
    draws: int = 20,
    seed: int = 0,
    on_users: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Return naive beside debiased mean ratings, with 95 % intervals.

    The naive mean is that of the ratings given by choice. The debiased one is that of the complete ratings, given and
    imputed, pooled over ``draws`` imputations by Rubin's rules; users are taken as a sample of users, and for
    ``by="user"`` items as a sample of items. Parameters are taken as fitted. ``on_users`` is called with the number
    of users after each block of them.

    Returns
    -------
    pandas.DataFrame
        ``id, ratings, naive, naive_lower, naive_upper, debiased, lower, upper``; one row an item or a user, or one
        row in all. Rating points.
    """
    log = predictor.log
    given = log.chosen
    axis = {"item": "item", "user": "user", "population": "population"}
    if by not in axis:
        raise ConfigError(f"summarize by '{by}' is unknown; use item, user or population")
    sums = np.zeros((2, draws, log.n_items))
    by_user: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for block in impute_blocks(predictor, draws, seed=seed):
        complete = block.complete.astype(np.float64)
        sums += np.stack([complete.sum(1), np.square(complete).sum(1)])
        by_user.append((complete.mean(2), complete.var(2, ddof=1) / log.n_items))
        if on_users:
            on_users(len(block.users))
    user_means = np.concatenate([mean for mean, _ in by_user], axis=1)  # (M, N)
    if by == "item":
        mean = sums[0] / log.n_users
        variance = (sums[1] / log.n_users - mean**2) / max(log.n_users - 1, 1)
        return _frame(log.catalogue.ids, given.items, given.values, rubin(mean, variance))
    if by == "user":
        variance = np.concatenate([variance for _, variance in by_user], axis=1)
        return _frame(log.users.ids, given.rows, given.values, rubin(user_means, variance))
    mean = user_means.mean(1, keepdims=True)
    variance = user_means.var(1, ddof=1, keepdims=True) / log.n_users
    everyone = np.array(["all"], dtype=object)
    return _frame(everyone, np.zeros(given.n_ratings, dtype=np.int64), given.values, rubin(mean, variance))


def _frame(
    ids: NDArray[np.generic],
    group: NDArray[np.integer],
    ratings: NDArray[np.float64],
    debiased: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> pd.DataFrame:
    """Put the naive mean of each group's given ratings, with its t interval, beside the debiased one."""
    count = np.bincount(group, minlength=len(ids))
    known = np.maximum(count, 1)
    mean = np.bincount(group, ratings, len(ids)) / known
    spread = np.bincount(group, (ratings - mean[group]) ** 2, len(ids)) / np.maximum(count - 1, 1)
    half = stats.t.ppf(0.975, np.maximum(count - 1, 1)) * np.sqrt(spread / known)
    mean, half = np.where(count > 0, mean, np.nan), np.where(count > 1, half, np.nan)
    return pd.DataFrame(
        {
            "id": ids,
            "ratings": count,
            "naive": mean,
            "naive_lower": mean - half,
            "naive_upper": mean + half,
            "debiased": debiased[0],
            "lower": debiased[1],
            "upper": debiased[2],
        }
    )
