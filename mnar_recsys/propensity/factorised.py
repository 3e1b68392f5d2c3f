"""Propensities from a low-rank fit of the mask: by alternating least squares, or logistic."""

from typing import ClassVar

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.lmf import LogisticMatrixFactorization
from numpy.typing import NDArray
from scipy.special import logit
from threadpoolctl import threadpool_limits

from mnar_recsys.data import RatingLog
from mnar_recsys.errors import DivergedError
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.cross_fitted import CrossFittedMask
from mnar_recsys.propensity.mask import mask_matrix, share_rated

_FLOOR = 0.15  # most scores are noise around 0: below this part of the share rated they have its log-odds
_ONE_THREAD = 1_000_000  # ratings below which threads would mostly wait for each other; results do not depend on it
_SWEEPS_AT_ONCE = 5
_MAX_SWEEPS = 200
_TOLERANCE = 1e-4  # relative gain of the loss over so many sweeps
_LMF_RATE = 1.0
_LMF_UNRATED = 5  # unrated cells drawn for each rating


class FactorisedMask(CrossFittedMask):
    """Alternating least squares on the 0/1 mask, cross-fitted and calibrated; see ``CrossFittedMask``.

    The factors minimise the squared error of all cells of the mask with a ridge penalty, which lowers the singular
    values of the mask by the penalty (Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets,
    ICDM 2008, with all confidences 1; solved by ``implicit``). Scores leave [0, 1]; the calibration weighs the score in
    units of the share rated and its own log-odds, which suit small probabilities better.

    Parameters
    ----------
    factors
        Number of factors, at least 1; the penalty decides how many of them matter.
    shrinkage
        The penalty, above 0, in units of the largest singular value that a mask of the same density has by noise
        alone, sqrt(d (1 - d)) (sqrt(N) + sqrt(P)) with d the share rated.
    folds, unrated_per_rating, max_cells
        As of ``CrossFittedMask``.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    _stream: ClassVar[str] = "als"

    def __init__(
        self,
        *,
        factors: int = 32,
        shrinkage: float = 0.8,
        folds: int = 5,
        unrated_per_rating: float = 5.0,
        max_cells: int = 1_000_000,
    ) -> None:
        super().__init__(factors=factors, folds=folds, unrated_per_rating=unrated_per_rating, max_cells=max_cells)
        self.shrinkage = positive("shrinkage", shrinkage)

    def _factorise(self, log: RatingLog, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factors at convergence; raise DivergedError if the loss does not settle."""
        share = share_rated(log)
        noise = np.sqrt(share * (1.0 - share)) * (np.sqrt(log.n_users) + np.sqrt(log.n_items))
        penalty = self.shrinkage * float(noise)
        mask, losses = mask_matrix(log), [np.inf]
        # Threads of BLAS beside its own only get in the way, of which it warns.
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=penalty,
                alpha=1.0,
                iterations=_SWEEPS_AT_ONCE,
                calculate_training_loss=True,
                num_threads=1 if log.n_ratings < _ONE_THREAD else 0,
                random_state=seed,
            )
            for _ in range(_MAX_SWEEPS // _SWEEPS_AT_ONCE):
                model.fit(mask, show_progress=False, callback=lambda _sweep, _seconds, loss: losses.append(float(loss)))
                if losses[-1 - _SWEEPS_AT_ONCE] - losses[-1] <= _TOLERANCE * losses[-1]:
                    return model.user_factors, model.item_factors
        raise DivergedError(f"the factors of the mask did not settle in {_MAX_SWEEPS} sweeps; use fewer factors")

    def _forms(self, score: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        floor = _FLOOR * self._share
        return [score / self._share, logit(np.clip(score, floor, 1.0 - floor))]


class LogisticFactorisedMask(CrossFittedMask):
    """Logistic matrix factorisation of the mask, cross-fitted and calibrated; see ``CrossFittedMask``.

    The log-odds of being rated are a product of factors plus biases of user and item, fitted to the ratings and to a
    sample of the unrated cells (Johnson, Logistic matrix factorization for implicit feedback data, NeurIPS 2014
    workshop; by ``implicit``). The sample raises the odds, and a short fit flattens them: the calibration sets both
    right.

    Parameters
    ----------
    factors
        Number of factors, at least 1.
    regularization
        The penalty on squared factors and biases, above 0.
    sweeps
        Passes over users and items, at least 1; there is no loss by which to stop.
    folds, unrated_per_rating, max_cells
        As of ``CrossFittedMask``.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    _stream: ClassVar[str] = "lmf"

    def __init__(
        self,
        *,
        factors: int = 16,
        regularization: float = 4.0,
        sweeps: int = 100,
        folds: int = 5,
        unrated_per_rating: float = 5.0,
        max_cells: int = 1_000_000,
    ) -> None:
        super().__init__(factors=factors, folds=folds, unrated_per_rating=unrated_per_rating, max_cells=max_cells)
        self.regularization = positive("regularization", regularization)
        self.sweeps = at_least("sweeps", sweeps, 1)

    def _factorise(self, log: RatingLog, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # Its threads share a random stream each: with one the result is the same on every machine.
        model = LogisticMatrixFactorization(
            factors=self.factors,
            learning_rate=_LMF_RATE,
            regularization=self.regularization,
            iterations=self.sweeps,
            neg_prop=_LMF_UNRATED,
            num_threads=1,
            random_state=seed,
        )
        with threadpool_limits(1, "blas"):
            model.fit(mask_matrix(log), show_progress=False)
        return model.user_factors, model.item_factors

    def _forms(self, score: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [score]
