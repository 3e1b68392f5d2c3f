"""The mask of a log: who rated what, counted and sampled at a cost that follows the number of ratings."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mnar_recsys.data import RatingLog

_CELLS_AT_ONCE = 250_000


def share_rated(log: RatingLog) -> float:
    """Return the share of all N * P cells that are rated."""
    return log.n_ratings / (log.n_users * log.n_items)


def user_counts(log: RatingLog) -> NDArray[np.int64]:
    """Return the number of ratings of each user, (N,)."""
    return np.diff(log.indptr)


def item_counts(log: RatingLog) -> NDArray[np.int64]:
    """Return the number of ratings of each item, (P,)."""
    return np.bincount(log.items, minlength=log.n_items)


def mask_matrix(log: RatingLog) -> "sparse.csr_matrix[np.float32]":
    """Return the mask, (N, P): 1 where rated."""
    # Copies, because compiled solvers refuse the read-only arrays of a log.
    ones = np.ones(log.n_ratings, dtype=np.float32)
    return sparse.csr_matrix((ones, log.items.copy(), log.indptr.copy()), shape=(log.n_users, log.n_items))


def sample_cells(log: RatingLog, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return distinct cell numbers (user * P + item) drawn uniformly from all cells, or all if they are fewer."""
    return sample_places(log.n_users * log.n_items, size, rng)


def sample_unrated(log: RatingLog, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return distinct cell numbers drawn uniformly from the unrated cells, or all of those if they are fewer."""
    rated = log.cells
    ranks = sample_places(log.n_users * log.n_items - len(rated), size, rng)
    # The unrated cell of rank r comes after as many rated cells c as have at most r unrated cells before them.
    return ranks + np.searchsorted(rated - np.arange(len(rated)), ranks, side="right")


def sample_places(population: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``size`` distinct whole numbers drawn uniformly from 0..population-1, or all if they are fewer."""
    if size >= population:
        return np.arange(population, dtype=np.int64)
    return np.asarray(rng.choice(population, size, replace=False, shuffle=False), dtype=np.int64)


def in_blocks(n: int) -> Iterator[slice]:
    """Yield slices of 0..n-1 short enough for temporary arrays of some factors a cell."""
    for start in range(0, n, _CELLS_AT_ONCE):
        yield slice(start, min(start + _CELLS_AT_ONCE, n))
