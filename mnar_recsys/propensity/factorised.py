"""Propensities from a low-rank fit of the mask, cross-fitted and calibrated."""

from dataclasses import dataclass

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError, DivergedError
from mnar_recsys.propensity.additive import AdditiveLogOdds, fit_additive
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.case_control import LogOdds, draw_case_control, fit_log_odds
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.mask import in_blocks, mask_matrix, share_rated
from mnar_recsys.rng import numpy_generator

_FLOOR = 0.15  # most scores are noise around 0: below this part of the share rated they have its log-odds
_RIDGE = 1e-3  # of the calibration: nearly none, but a score that is constant must not break it
_PRIOR_SD = 1.0  # of the additive log-odds
_ONE_THREAD = 1_000_000  # ratings below which threads would mostly wait for each other; results do not depend on it
_SWEEPS_AT_ONCE = 5
_MAX_SWEEPS = 200
_TOLERANCE = 1e-4  # relative gain of the loss over so many sweeps


@dataclass(frozen=True, eq=False)
class _Fit:
    """What was fitted to the mask with one fold hidden."""

    user: NDArray[np.float32]  # (N, F)
    item: NDArray[np.float32]  # (P, F)
    additive: AdditiveLogOdds


class FactorisedMask(PropensityModel):
    """Alternating least squares on the 0/1 mask, with Platt's calibration on cells that the factors did not see.

    The factors minimise the squared error of all cells of the mask with a ridge penalty, which lowers the singular
    values of the mask by the penalty (Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets,
    ICDM 2008, with all confidences 1; solved by ``implicit``). Fitted cells look more predictable than they are, and
    scores leave [0, 1]. So cells are dealt at random into folds, the score of a cell comes from the fit from which its
    fold was hidden, and the log-odds of being rated are linear in the score (Platt, Probabilistic outputs for support
    vector machines, 1999), in the score's own log-odds, which suit small probabilities better, and in the additive
    log-odds of ``UserItemPopularity`` in the same fit: where people and items have few ratings, a low-rank score says
    little of how active and how popular they are.

    Parameters
    ----------
    factors
        Number of factors, at least 1; the penalty decides how many of them matter.
    shrinkage
        The penalty, above 0, in units of the largest singular value that a mask of the same density has by noise
        alone, sqrt(d (1 - d)) (sqrt(N) + sqrt(P)) with d the share rated.
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

    calibration: LogOdds
    """Weights of the score (in units of the share rated), of its log-odds and of the additive log-odds."""

    def __init__(
        self,
        *,
        factors: int = 32,
        shrinkage: float = 0.8,
        folds: int = 5,
        unrated_per_rating: float = 5.0,
        max_cells: int = 1_000_000,
    ) -> None:
        self.factors = at_least("factors", factors, 1)
        self.shrinkage = positive("shrinkage", shrinkage)
        self.folds = at_least("folds", folds, 2)
        self.unrated_per_rating = positive("unrated_per_rating", unrated_per_rating)
        self.max_cells = at_least("max_cells", max_cells, 100)
        self._key = np.uint64(0)
        self._n_items = 0
        self._share = 0.0
        self._fits: list[_Fit] = []

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        self._key = numpy_generator(seed, "als", "folds").integers(2**63, dtype=np.uint64)
        self._n_items, self._share = log.n_items, share_rated(log)
        fold = self._fold(log.rows, log.items)
        if np.bincount(fold).max() == log.n_ratings:
            raise DataError(
                f"FactorisedMask needs ratings in two folds or more; found all {log.n_ratings} in one. Give more"
            )
        self._fits = [
            self._fit_without(log.select_ratings(fold != hidden), seed, hidden) for hidden in range(self.folds)
        ]
        sample = draw_case_control(
            log,
            unrated_per_rating=self.unrated_per_rating,
            max_cells=self.max_cells,
            rng=numpy_generator(seed, "als", "calibration"),
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
        share = share_rated(log)
        noise = np.sqrt(share * (1.0 - share)) * (np.sqrt(log.n_users) + np.sqrt(log.n_items))
        user, item = _factorise(log, self.factors, self.shrinkage * float(noise), seed, hidden)
        return _Fit(user, item, fit_additive(log, prior_sd=_PRIOR_SD))

    def _covariates(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what the calibration weighs, of cells hidden from the fit, (n, 3)."""
        covariates = np.empty((len(rows), 3))
        floor = _FLOOR * self._share
        for block in in_blocks(len(rows)):
            fold = self._fold(rows[block], columns[block])
            for hidden, fit in enumerate(self._fits):
                places = block.start + np.flatnonzero(fold == hidden)
                u, i = rows[places], columns[places]
                score = np.einsum("nf,nf->n", fit.user[u], fit.item[i])
                log_odds = logit(np.clip(score, floor, 1.0 - floor))
                covariates[places] = np.stack([score / self._share, log_odds, fit.additive.at(u, i)], axis=1)
        return covariates


def _factorise(
    log: RatingLog, factors: int, penalty: float, seed: int, hidden: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return factors of users, (N, F), and of items, (P, F), at convergence.

    Raises
    ------
    DivergedError
        If the loss does not settle.
    """
    mask, losses = mask_matrix(log), [np.inf]
    start = int(numpy_generator(seed, "als", "factors", hidden).integers(2**31))
    # Threads of BLAS beside its own only get in the way, of which it warns.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=penalty,
            alpha=1.0,
            iterations=_SWEEPS_AT_ONCE,
            calculate_training_loss=True,
            num_threads=1 if log.n_ratings < _ONE_THREAD else 0,
            random_state=start,
        )
        for _ in range(_MAX_SWEEPS // _SWEEPS_AT_ONCE):
            model.fit(mask, show_progress=False, callback=lambda _sweep, _seconds, loss: losses.append(float(loss)))
            if losses[-1 - _SWEEPS_AT_ONCE] - losses[-1] <= _TOLERANCE * losses[-1]:
                return model.user_factors, model.item_factors
    raise DivergedError(f"the factors of the mask did not settle in {_MAX_SWEEPS} sweeps; use fewer factors")
