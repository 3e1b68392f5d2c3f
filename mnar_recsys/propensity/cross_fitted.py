"""Propensities from factors of the mask that have not seen the cell, calibrated."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError
from mnar_recsys.propensity.additive import AdditiveLogOdds, fit_additive
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.case_control import LogOdds, draw_case_control, fit_log_odds
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.mask import in_blocks, share_rated
from mnar_recsys.rng import numpy_generator

_RIDGE = 1e-3  # of the calibration: nearly none, but a score that is constant must not break it
_PRIOR_SD = 1.0  # of the additive log-odds


@dataclass(frozen=True, eq=False)
class _Fit:
    """What was fitted to the mask with one fold hidden."""

    user: NDArray[np.float32]  # (N, F)
    item: NDArray[np.float32]  # (P, F)
    additive: AdditiveLogOdds


class CrossFittedMask(PropensityModel):
    """Factors of the 0/1 mask, with Platt's calibration on cells that the factors did not see.

    Fitted cells look more predictable than they are. So cells are dealt at random into folds, the score of a cell, the
    product of its user's and its item's factors, comes from the fit from which its fold was hidden, and the log-odds of
    being rated are linear in forms of the score (Platt, Probabilistic outputs for support vector machines, 1999) and in
    the additive log-odds of ``UserItemPopularity`` in the same fit: where people and items have few ratings, factors
    say little of how active and how popular they are. A subclass says how the mask is factorised, and which forms of
    the score are weighed.

    Parameters
    ----------
    factors
        Number of factors, at least 1.
    folds
        Number of folds and of fits, at least 2.
    unrated_per_rating
        Unrated cells drawn for the calibration, for each rating, above 0.
    max_cells
        Cells drawn for the calibration at most, ratings and unrated together.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    _stream: ClassVar[str]  # the name of what is drawn at random

    calibration: LogOdds
    """Weights of the forms of the score, and of the additive log-odds."""

    def __init__(self, *, factors: int, folds: int, unrated_per_rating: float, max_cells: int) -> None:
        self.factors = at_least("factors", factors, 1)
        self.folds = at_least("folds", folds, 2)
        self.unrated_per_rating = positive("unrated_per_rating", unrated_per_rating)
        self.max_cells = at_least("max_cells", max_cells, 100)
        self._key = np.uint64(0)
        self._n_items = 0
        self._share = 0.0
        self._fits: list[_Fit] = []

    @abstractmethod
    def _factorise(self, log: RatingLog, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return factors of users, (N, F), and of items, (P, F), of who rated what in a log."""

    @abstractmethod
    def _forms(self, score: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return what the calibration weighs of the scores (n,) of cells: (n,) each."""

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        self._key = numpy_generator(seed, self._stream, "folds").integers(2**63, dtype=np.uint64)
        self._n_items, self._share = log.n_items, share_rated(log)
        fold = self._fold(log.rows, log.items)
        if np.bincount(fold).max() == log.n_ratings:
            raise DataError(
                f"{type(self).__name__} needs ratings in two folds or more; found all {log.n_ratings} in one. Give more"
            )
        self._fits = [
            self._fit_without(log.select_ratings(fold != hidden), seed, hidden) for hidden in range(self.folds)
        ]
        sample = draw_case_control(
            log,
            unrated_per_rating=self.unrated_per_rating,
            max_cells=self.max_cells,
            rng=numpy_generator(seed, self._stream, "calibration"),
        )
        self.calibration = fit_log_odds(sample, self._covariates, ridge=_RIDGE, solver="newton-cholesky")

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        covariates = self._covariates(rows, columns)
        return np.asarray(expit(self.calibration.intercept + covariates @ self.calibration.weights))

    def _fold(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the fold of cells, (n,), evenly at random.

        The cell number goes through a mixing function of 64 bits (Steele, Lea and Flood, Fast splittable pseudorandom
        number generators, OOPSLA 2014), so that no table of all cells is kept.
        """
        mixed = (rows.astype(np.uint64) * np.uint64(self._n_items) + columns.astype(np.uint64)) ^ self._key
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(self.folds)).astype(np.int64)

    def _fit_without(self, log: RatingLog, seed: int, hidden: int) -> _Fit:
        start = int(numpy_generator(seed, self._stream, "factors", hidden).integers(2**31))
        user, item = self._factorise(log, start)
        return _Fit(user, item, fit_additive(log, prior_sd=_PRIOR_SD))

    def _covariates(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what the calibration weighs, of cells hidden from the fit, (n, number of forms + 1)."""
        covariates: NDArray[np.float64] | None = None
        for block in in_blocks(len(rows)):
            fold = self._fold(rows[block], columns[block])
            for hidden, fit in enumerate(self._fits):
                places = block.start + np.flatnonzero(fold == hidden)
                u, i = rows[places], columns[places]
                score = np.einsum("nf,nf->n", fit.user[u], fit.item[i]).astype(np.float64)
                found = np.stack([*self._forms(score), fit.additive.at(u, i)], axis=1)
                if covariates is None:
                    covariates = np.empty((len(rows), found.shape[1]))
                covariates[places] = found
        return np.empty((0, len(self.calibration.weights))) if covariates is None else covariates
