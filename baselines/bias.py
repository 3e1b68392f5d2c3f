"""Global mean plus user and item offsets: what is known without any taste."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.rng import numpy_generator

SHRINKAGE_GRID = (1.0, 3.0, 10.0, 30.0)
"""Candidates: the shrinkage is best at (residual variance) / (variance of the offsets), which is about 1
where people differ as much as their ratings do, and 30 where they hardly differ."""
_HELD_OUT = 0.1
_TOLERANCE = 1e-7  # rating points, relative to the spread of the ratings
_MAX_SWEEPS = 2000


@dataclass(frozen=True, eq=False)
class Offsets:
    """A solution: what is predicted is ``mean + user[u] + item[i]``, in rating points."""

    mean: float
    user: NDArray[np.float64]  # (N,)
    item: NDArray[np.float64]  # (P,)


class BiasBaseline(Baseline):
    r"""Ridge regression on who rated and what was rated.

    Predicts :math:`\mu + a_u + b_i` (Koren, Bell and Volinsky, Matrix factorization techniques for recommender systems,
    IEEE Computer 42, 2009, eq. 3) with :math:`\mu` the mean rating and the a and b that minimise
    :math:`\sum_{\text{rated}} (x_{ui} - \mu - a_u - b_i)^2 + \lambda_a \sum_u a_u^2 + \lambda_b \sum_i b_i^2`, by
    closed-form updates of all a and all b in turn, to convergence. The minimum is unique. Ids that are unknown or have
    no rating have the offset 0.

    Other than in the paper (eq. 5), offsets are fitted without factors beside them; users and items have a lambda each;
    and the penalty counts once an offset, not once a rating.

    Parameters
    ----------
    user_shrinkage, item_shrinkage
        The two lambdas, above 0, in ratings: an offset is shrunk as if so many more ratings had no residual. Where one
        is not given, or neither, it is the value, or pair, of ``SHRINKAGE_GRID`` with the least squared error on a
        random tenth of the *training* ratings, or 1 where there are too few ratings for a tenth. The offsets are then
        fitted to all training ratings.

    Raises
    ------
    ConfigError
        If a given shrinkage is not a number above 0.
    DivergedError
        From ``fit``, if the updates do not settle, which needs a shrinkage near 0.
    """

    offsets: Offsets

    def __init__(self, *, user_shrinkage: float | None = None, item_shrinkage: float | None = None) -> None:
        for label, value in (("user_shrinkage", user_shrinkage), ("item_shrinkage", item_shrinkage)):
            if value is not None and not 0.0 < value < np.inf:
                raise ConfigError(f"{label} must be a number above 0; found {value}")
        self.user_shrinkage = user_shrinkage
        self.item_shrinkage = item_shrinkage
        self.chosen: tuple[float, float] | None = None
        """The shrinkage of users and of items used in the last fit."""

    def _fit(self, split: Split, seed: int) -> None:
        """Choose the shrinkage where it was not given, then solve on all ratings."""
        log = split.mnar_train
        self.chosen = self._choose(log, seed)
        self.offsets = solve_offsets(log.rows, log.items, log.ratings, (log.n_users, log.n_items), self.chosen)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        user, item = np.append(self.offsets.user, 0.0), np.append(self.offsets.item, 0.0)
        return np.asarray(self.offsets.mean + user[rows] + item[columns])

    def _choose(self, log: RatingLog, seed: int) -> tuple[float, float]:
        candidates = list(
            product(
                SHRINKAGE_GRID if self.user_shrinkage is None else (self.user_shrinkage,),
                SHRINKAGE_GRID if self.item_shrinkage is None else (self.item_shrinkage,),
            )
        )
        held = numpy_generator(seed, "bias", "held-out").random(log.n_ratings) < _HELD_OUT
        if len(candidates) == 1 or not held.any() or held.all():
            return candidates[0]
        errors = [_held_out_error(log, held, shrinkage) for shrinkage in candidates]
        return candidates[int(np.argmin(errors))]


def _held_out_error(log: RatingLog, held: NDArray[np.bool_], shrinkage: tuple[float, float]) -> float:
    rows, items, ratings = log.rows, log.items, log.ratings
    shape = (log.n_users, log.n_items)
    fitted = solve_offsets(rows[~held], items[~held], ratings[~held], shape, shrinkage)
    predicted = fitted.mean + fitted.user[rows[held]] + fitted.item[items[held]]
    return float(np.square(predicted - ratings[held]).mean())


def solve_offsets(
    rows: NDArray[np.integer],
    items: NDArray[np.integer],
    ratings: NDArray[np.floating],
    shape: tuple[int, int],
    shrinkage: tuple[float, float],
) -> Offsets:
    """Solve the ridge problem for ratings at (rows, items), each (n,).

    Parameters
    ----------
    shape
        Number of users and of items.
    shrinkage
        lambda of the users and of the items.

    Raises
    ------
    DivergedError
        If the updates do not settle, which needs a shrinkage near 0.
    """
    mean = float(ratings.mean(dtype=np.float64))
    residual = ratings.astype(np.float64) - mean
    tolerance = _TOLERANCE * max(float(residual.std()), 1e-12)
    user_size = np.bincount(rows, minlength=shape[0]) + shrinkage[0]
    item_size = np.bincount(items, minlength=shape[1]) + shrinkage[1]
    user, item = np.zeros(shape[0]), np.zeros(shape[1])
    rated_by, rated = user_size > shrinkage[0], item_size > shrinkage[1]
    for _ in range(_MAX_SWEEPS):
        user = np.bincount(rows, weights=residual - item[items], minlength=shape[0]) / user_size
        before = item
        item = np.bincount(items, weights=residual - user[rows], minlength=shape[1]) / item_size
        # Raising all users and lowering all items fits the same: the sweeps alone would be slow to settle it.
        shift = _best_shift(user[rated_by], item[rated], shrinkage)
        user[rated_by] += shift
        item[rated] -= shift
        if np.abs(item - before).max() <= tolerance:
            return Offsets(mean, user, item)
    raise DivergedError(
        f"offsets did not settle in {_MAX_SWEEPS} sweeps at shrinkage {shrinkage}; use a larger shrinkage"
    )


def _best_shift(user: NDArray[np.float64], item: NDArray[np.float64], shrinkage: tuple[float, float]) -> float:
    """Return the d that minimises the penalty of user + d and item - d."""
    gain = shrinkage[1] * item.sum() - shrinkage[0] * user.sum()
    return float(gain / (shrinkage[0] * len(user) + shrinkage[1] * len(item)))
