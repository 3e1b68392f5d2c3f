"""Factors by exact ridge solves, of all users and of all items in turn: the solver that several methods share."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog
from mnar_recsys.errors import DivergedError
from mnar_recsys.rng import numpy_generator

TOLERANCE = 1e-5
"""Relative fall of the objective in a sweep below which a fit has converged."""
_MAX_SWEEPS = 5000
_START_SD = 0.3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shrinkage:
    """Penalties of half the squared norms, beside half the squared errors in rating points.

    Attributes
    ----------
    factors
        Of p_u and q_i, in rating points: noise variance over the variance of a factor. Users and items need no value
        each, because scaling all p up and all q down changes no prediction: only the product of the two would matter.
    offsets
        Of a_u and b_i, in ratings; None leaves out the offsets.
    slopes
        Of the slopes g_u on the covariate, in ratings with a covariate of 1.
    """

    factors: float
    offsets: float | None = None
    slopes: float = 1.0


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings to fit, n of them.

    Attributes
    ----------
    rows, columns
        Indices of user and item, each (n,).
    values
        In rating points, (n,).
    shape
        Numbers of users N and items P.
    covariate
        A number z_ui per rating, (n,), or None.
    """

    rows: NDArray[np.integer]
    columns: NDArray[np.integer]
    values: Array
    shape: tuple[int, int]
    covariate: Array | None = None

    @classmethod
    def of_log(cls, log: RatingLog, covariate: Array | None = None) -> "Ratings":
        """Return the ratings of a log."""
        return cls(log.rows, log.items, log.values, (log.n_users, log.n_items), covariate)


@dataclass(frozen=True, eq=False)
class Factors:
    """A solution, ``mean + a_u + b_i + p_u . q_i + g_u z_ui``, in rating points.

    Tables have one row more than there are users or items: the unknown one, at 0. So is whoever has no rating.
    """

    mean: float
    user: Array  # (N + 1, K)
    item: Array  # (P + 1, K)
    user_offset: Array  # (N + 1,)
    item_offset: Array  # (P + 1,)
    slope: Array  # (N + 1,)

    def predict(self, rows: NDArray[np.integer], columns: NDArray[np.integer], covariate: Array | None = None) -> Array:
        """Return predictions of pairs of indices, (n,); ``covariate`` (n,) if there was one in the fit."""
        taste = np.einsum("nk,nk->n", self.user[rows], self.item[columns])
        known = self.mean + self.user_offset[rows] + self.item_offset[columns] + taste
        return np.asarray(known if covariate is None else known + self.slope[rows] * covariate)

    def objective(self, ratings: Ratings, shrinkage: Shrinkage) -> float:
        """Return half the squared errors plus the penalties: what ``fit_factors`` minimises."""
        errors = ratings.values - self.predict(ratings.rows, ratings.columns, ratings.covariate)
        offsets = np.square(self.user_offset).sum() + np.square(self.item_offset).sum()
        penalty = (
            shrinkage.factors * (np.square(self.user).sum() + np.square(self.item).sum())
            + (shrinkage.offsets or 0.0) * offsets
            + shrinkage.slopes * np.square(self.slope).sum()
        )
        return float(np.square(errors).sum() + penalty) / 2


def fit_factors(
    ratings: Ratings,
    size: int,
    shrinkage: Shrinkage,
    *,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Factors:
    """Minimise the objective by exact solves of all users, then all items, until it falls no further.

    The mean stays that of the ratings. Time per sweep is O(n K^2 + (N + P) K^3), memory O(n + (N + P) K^2).

    Parameters
    ----------
    size
        Number of factors K.
    seed
        Decides the items' factors to start from.
    tolerance
        Stop when a sweep lowers the objective by less than this share of it.

    Raises
    ------
    DivergedError
        If the objective keeps falling; it needs a shrinkage near 0.
    """
    factors = _random_start(ratings, size, seed)
    before = factors.objective(ratings, shrinkage)
    for _ in range(_MAX_SWEEPS):
        factors = _solve_items(_solve_users(factors, ratings, shrinkage), ratings, shrinkage)
        after = factors.objective(ratings, shrinkage)
        if before - after <= tolerance * before:
            return factors
        before = after
    raise DivergedError(f"factors did not settle in {_MAX_SWEEPS} sweeps at {shrinkage}; use a larger shrinkage")


def _random_start(ratings: Ratings, size: int, seed: int) -> Factors:
    users, items = (entries + 1 for entries in ratings.shape)
    item = _START_SD * numpy_generator(seed, "alternating ridge", "start").standard_normal((items, size))
    item[-1] = 0.0
    mean = float(ratings.values.mean())
    return Factors(mean, np.zeros((users, size)), item, np.zeros(users), np.zeros(items), np.zeros(users))


def _solve_users(factors: Factors, ratings: Ratings, shrinkage: Shrinkage) -> Factors:
    columns = ratings.columns
    design, penalty = _with_offset(factors.item[columns], shrinkage)
    if ratings.covariate is not None:
        design, penalty = np.column_stack([design, ratings.covariate]), np.append(penalty, shrinkage.slopes)
    target = ratings.values - factors.mean - factors.item_offset[columns]
    found = solve_rows(ratings.rows, len(factors.user), design, target, penalty)
    size = factors.user.shape[1]
    return replace(
        factors,
        user=found[:, :size],
        user_offset=factors.user_offset if shrinkage.offsets is None else found[:, size],
        slope=factors.slope if ratings.covariate is None else found[:, -1],
    )


def _solve_items(factors: Factors, ratings: Ratings, shrinkage: Shrinkage) -> Factors:
    rows = ratings.rows
    design, penalty = _with_offset(factors.user[rows], shrinkage)
    target = ratings.values - factors.mean - factors.user_offset[rows]
    if ratings.covariate is not None:
        target = target - factors.slope[rows] * ratings.covariate
    found = solve_rows(ratings.columns, len(factors.item), design, target, penalty)
    size = factors.item.shape[1]
    return replace(
        factors,
        item=found[:, :size],
        item_offset=factors.item_offset if shrinkage.offsets is None else found[:, size],
    )


def _with_offset(design: Array, shrinkage: Shrinkage) -> tuple[Array, Array]:
    """Return the regressors of the factors, with a constant where there are offsets, and their penalties."""
    penalty = np.full(design.shape[1], shrinkage.factors)
    if shrinkage.offsets is None:
        return design, penalty
    return np.column_stack([design, np.ones(len(design))]), np.append(penalty, shrinkage.offsets)


def solve_rows(rows: NDArray[np.integer], n_rows: int, design: Array, target: Array, penalty: Array) -> Array:
    """Return each row's ridge coefficients, (n_rows, D); 0 for a row without data.

    Parameters
    ----------
    rows
        Which regression each of n observations belongs to, (n,).
    design, target
        Regressors (n, D) and what they explain (n,).
    penalty
        Of the squared coefficients, (D,), each above 0.
    """
    order = np.argsort(rows, kind="stable")
    sorted_design, sorted_target = design[order], target[order]
    counts = np.bincount(rows, minlength=n_rows)
    present = np.flatnonzero(counts)
    gram = np.empty((len(present), design.shape[1], design.shape[1]))
    moment = np.empty((len(present), design.shape[1], 1))
    # Products row by row: all outer products at once would take O(n D^2) memory.
    for place, (start, end) in enumerate(pairwise([0, *np.cumsum(counts[present]).tolist()])):
        regressors = sorted_design[start:end]
        gram[place] = regressors.T @ regressors
        moment[place, :, 0] = sorted_target[start:end] @ regressors
    coefficients = np.zeros((n_rows, design.shape[1]))
    coefficients[present] = np.linalg.solve(gram + np.diag(penalty), moment)[..., 0]
    return coefficients
