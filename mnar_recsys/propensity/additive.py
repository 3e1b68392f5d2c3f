"""Who rates what from margins alone: the log-odds of a cell are an offset of the user plus an offset of the item."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit, logit

from mnar_recsys.data import RatingLog
from mnar_recsys.errors import DivergedError
from mnar_recsys.propensity.mask import item_counts, share_rated, user_counts

_MAX_STEPS = 100
_TOLERANCE = 1e-9  # nats of the whole log-likelihood
_SMOOTHING = 1.0  # pseudo-cells a user or item in the starting point


@dataclass(frozen=True, eq=False)
class AdditiveLogOdds:
    """A solution: the log-odds of cell (u, i) are ``intercept + user[u] + item[i]``."""

    intercept: float
    user: NDArray[np.float64]  # (N,)
    item: NDArray[np.float64]  # (P,)

    def at(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the log-odds of cells, (n,)."""
        return np.asarray(self.intercept + self.user[rows] + self.item[columns])


def fit_additive(log: RatingLog, *, prior_sd: float) -> AdditiveLogOdds:
    r"""Return the posterior mode of a two-way logistic regression of the mask of ``log``.

    Maximises :math:`\sum_{ui} \log p(s_{ui} | c + a_u + b_i) - \sum_u a_u^2 / 2 \sigma^2 - \sum_i b_i^2 / 2
    \sigma^2`, which is strictly concave, by Newton's method. The numbers of ratings of users and of items are
    sufficient statistics, so users with equally many have the same offset: the unknowns are one for each distinct
    number, of which there are at most sqrt(2 n) for n ratings. A step sums over a grid of at most 2 n pairs of distinct
    numbers, whatever the number of cells, and solves a system of the size of the shorter side.

    Parameters
    ----------
    prior_sd
        sigma: prior standard deviation of the offsets, in log-odds. It keeps the offsets of those without any rating
        finite; as it grows, the expected number of ratings of each user and item becomes the actual one.

    Raises
    ------
    DivergedError
        If Newton's method does not settle, which needs an extreme ``prior_sd``.
    """
    user, user_group, user_size = np.unique(user_counts(log), return_inverse=True, return_counts=True)
    item, item_group, item_size = np.unique(item_counts(log), return_inverse=True, return_counts=True)
    if log.n_ratings == log.n_users * log.n_items:
        return AdditiveLogOdds(np.inf, np.zeros(log.n_users), np.zeros(log.n_items))
    # The longer side is eliminated, so that the system to solve has the size of the shorter.
    swap = len(user) < len(item)
    sides = _Side(user, user_size, log.n_items), _Side(item, item_size, log.n_users)
    long, short = sides[::-1] if swap else sides
    point = _maximise(long, short, share_rated(log), prior_sd**-2)
    by_user, by_item = (point.short, point.long) if swap else (point.long, point.short)
    return AdditiveLogOdds(point.intercept, by_user[user_group], by_item[item_group])


@dataclass(frozen=True, eq=False)
class _Side:
    """Users, or items, grouped by their number of ratings."""

    count: NDArray[np.int64]  # (G,), ratings of each member of a group
    size: NDArray[np.int64]  # (G,), members of a group
    n_cells: int  # cells of one member

    def start(self, share: float) -> NDArray[np.float64]:
        return np.asarray(logit((self.count + _SMOOTHING * share) / (self.n_cells + _SMOOTHING)) - logit(share))


@dataclass(frozen=True, eq=False)
class _Point:
    intercept: float
    long: NDArray[np.float64]  # (G,)
    short: NDArray[np.float64]  # (H,)

    def moved(self, step: Self, length: float) -> "_Point":
        return _Point(
            self.intercept + length * step.intercept,
            self.long + length * step.long,
            self.short + length * step.short,
        )


def _maximise(long: _Side, short: _Side, share: float, precision: float) -> _Point:
    point = _Point(float(logit(share)), long.start(share), short.start(share))
    height = _log_posterior(point, long, short, precision)
    for _ in range(_MAX_STEPS):
        step, gain = _newton_step(point, long, short, precision)
        if gain <= _TOLERANCE:
            return point.moved(step, 1.0)
        length = 1.0
        # Far from the mode a full step can overshoot; near it rounding hides the gain, hence the slack.
        while (reached := _log_posterior(point.moved(step, length), long, short, precision)) < height - 1e-9 * abs(
            height
        ):
            length /= 2
        point, height = point.moved(step, length), reached
    raise DivergedError(f"offsets of users and items did not settle in {_MAX_STEPS} steps; use a smaller prior_sd")


def _logits(point: _Point) -> NDArray[np.float64]:
    return np.asarray(point.intercept + point.long[:, None] + point.short)  # (G, H)


def _log_posterior(point: _Point, long: _Side, short: _Side, precision: float) -> float:
    softplus = long.size @ np.logaddexp(0.0, _logits(point)) @ short.size
    linear = point.intercept * (long.size @ long.count) + long.size @ (long.count * point.long)
    linear += short.size @ (short.count * point.short)
    penalty = precision / 2 * (long.size @ point.long**2 + short.size @ point.short**2)
    return float(linear - softplus - penalty)


def _newton_step(point: _Point, long: _Side, short: _Side, precision: float) -> tuple[_Point, float]:
    """Return the Newton step and the gain that the quadratic model promises, in nats."""
    cells = long.size[:, None] * short.size  # (G, H)
    expected = cells * expit(_logits(point))
    weight = expected * expit(-_logits(point))
    rise_long = long.size * long.count - expected.sum(axis=1) - precision * long.size * point.long
    rise_rest = np.append(
        short.size * short.count - expected.sum(axis=0) - precision * short.size * point.short,
        long.size @ long.count - expected.sum(),
    )  # (H + 1,): the intercept goes with the shorter side
    diagonal = weight.sum(axis=1) + precision * long.size
    coupling = np.column_stack([weight, weight.sum(axis=1)])  # (G, H + 1)
    rest = np.zeros((len(rise_rest), len(rise_rest)))
    np.fill_diagonal(rest, np.append(weight.sum(axis=0) + precision * short.size, weight.sum()))
    rest[:-1, -1] = rest[-1, :-1] = weight.sum(axis=0)
    schur = rest - coupling.T @ (coupling / diagonal[:, None])
    step_rest = linalg.solve(schur, rise_rest - coupling.T @ (rise_long / diagonal), assume_a="pos")
    step_long = (rise_long - coupling @ step_rest) / diagonal
    gain = (rise_long @ step_long + rise_rest @ step_rest) / 2
    return _Point(float(step_rest[-1]), step_long, step_rest[:-1]), float(gain)
