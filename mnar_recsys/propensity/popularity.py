"""Propensities from how much each item is rated, how much each user rates, or both."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.propensity.additive import AdditiveLogOdds, fit_additive
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.checks import positive
from mnar_recsys.propensity.mask import item_counts, share_rated, user_counts


class _Margin(PropensityModel):
    """A share of each row or column of the mask, shrunk towards the share of all cells.

    Parameters
    ----------
    smoothing
        Above 0: a row or column is counted as if so many more cells had been rated at the average rate, so that those
        without any rating have a propensity above 0. The mean propensity of all cells stays the share rated.
    """

    shares: NDArray[np.float64]
    """Propensity of each user or item, (N,) or (P,)."""

    def __init__(self, *, smoothing: float = 1.0) -> None:
        self.smoothing = positive("smoothing", smoothing)

    def _shrunk(self, counts: NDArray[np.int64], n_cells: int, log: RatingLog) -> NDArray[np.float64]:
        return np.asarray((counts + self.smoothing * share_rated(log)) / (n_cells + self.smoothing))


class ItemPopularity(_Margin):
    """P(s = 1 | i): the share of users who rated the item, smoothed.

    Parameters
    ----------
    smoothing
        Above 0: users added to each item's count, who rate at the average rate.
    """

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        log = split.mnar_train
        self.shares = self._shrunk(item_counts(log), log.n_users, log)

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:  # noqa: ARG002
        return self.shares.take(columns)


class UserPopularity(_Margin):
    """P(s = 1 | u): the share of items that the user rated, smoothed.

    Parameters
    ----------
    smoothing
        Above 0: items added to each user's count, which are rated at the average rate.
    """

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        log = split.mnar_train
        self.shares = self._shrunk(user_counts(log), log.n_items, log)

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:  # noqa: ARG002
        return self.shares.take(rows)


class UserItemPopularity(PropensityModel):
    """P(s = 1 | u, i) with log-odds c + a_u + b_i, at the posterior mode; see ``additive.fit_additive``.

    Parameters
    ----------
    prior_sd
        Prior standard deviation of the offsets of users and of items, in log-odds, above 0.

    Raises
    ------
    ConfigError
        If ``prior_sd`` is not a number above 0.
    """

    log_odds: AdditiveLogOdds

    def __init__(self, *, prior_sd: float = 1.0) -> None:
        self.prior_sd = positive("prior_sd", prior_sd)

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        self.log_odds = fit_additive(split.mnar_train, prior_sd=self.prior_sd)

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(expit(self.log_odds.at(rows, columns)))
