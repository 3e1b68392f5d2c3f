"""Probabilistic matrix factorization: Gaussian priors on the factors, no offsets."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.alternating_ridge import TOLERANCE, Factors, Ratings, Shrinkage, fit_factors
from baselines.base import Baseline, require_valid
from baselines.fitting import check_positive, squared_error, with_validation
from mnar_recsys.data import RatingLog, Split

SHRINKAGE_GRID = (12.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0)
"""Candidates, in standard deviations of the ratings: scaling all ratings up scales the best value alike."""

_ROUGHLY = 1e-4  # tolerance of the fits that are only compared
_LEAST_SPREAD = 1e-6  # rating points: a log of equal ratings still needs a shrinkage above 0


class Pmf(Baseline):
    r"""Maximum a posteriori of U and V where :math:`x_{ui} \sim N(\mu + U_u^T V_i, \sigma^2)`, U and V normal.

    Minimises :math:`\frac12 \sum_{\text{rated}} (x_{ui} - \mu - U_u^T V_i)^2 + \frac{\lambda}{2} (\|U\|^2 + \|V\|^2)`
    with :math:`\mu` the mean rating (Mnih and Salakhutdinov, Probabilistic matrix factorization, NIPS 2007, eq. 4), by
    exact solves in turn instead of gradient steps. One lambda serves both priors: scaling U up and V down changes no
    prediction, so that only the product of the two matters.

    The paper's adaptive priors maximise the posterior over the variances as well, and rely on stopping early: as that
    density is without bound at U = V = 0 with vanishing variances, its maximum predicts the mean for everyone. Here the
    data choose lambda through held-out ratings instead. Predictions are linear, as in eq. 4, not squashed into the
    range by a logistic function; they are clipped to it.

    Parameters
    ----------
    size
        Number of factors.
    shrinkage
        lambda, in rating points. Where it is not given it is the value of ``SHRINKAGE_GRID`` (times the standard
        deviation of the ratings) that predicts held-out self-selected ratings best: ``mnar_valid`` or, where there is
        none, a random tenth of ``mnar_train``. Values are tried from the largest down until the error rises.

    Raises
    ------
    ConfigError
        If a setting is not above 0.
    DivergedError
        From ``fit``, if the solves do not settle, which needs a shrinkage near 0.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({"size": (5, 10, 15)})

    def __init__(self, *, size: int = 10, shrinkage: float | None = None) -> None:
        check_positive(size=size, **({} if shrinkage is None else {"shrinkage": shrinkage}))
        self.size = size
        self.shrinkage = shrinkage
        self.chosen: float | None = None
        """The lambda of the last fit, in rating points."""

    def _fit(self, split: Split, seed: int) -> None:
        self.chosen = self._choose(with_validation(split, seed), seed) if self.shrinkage is None else self.shrinkage
        self._fit_exposure(split, seed)
        self.factors = self._fit_factors(split.mnar_train, self.chosen, seed)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.factors.predict(rows, columns, self._covariate(rows, columns))

    def _choose(self, split: Split, seed: int) -> float:
        """Return the lambda with the smallest error on ``mnar_valid``, from strong to weak until it rises."""
        self._fit_exposure(split, seed)
        log, valid = split.mnar_train, require_valid(split)
        best, chosen = math.inf, math.nan
        for ratio in SHRINKAGE_GRID:
            candidate = ratio * max(float(log.values.std()), _LEAST_SPREAD)
            factors = self._fit_factors(log, candidate, seed, tolerance=_ROUGHLY)
            predicted = factors.predict(valid.rows, valid.items, self._covariate(valid.rows, valid.items))
            error = squared_error(valid, predicted)
            if error > best:
                break
            best, chosen = error, candidate
        return chosen

    def _fit_factors(self, log: RatingLog, shrinkage: float, seed: int, *, tolerance: float = TOLERANCE) -> Factors:
        ratings = Ratings.of_log(log, self._covariate(log.rows, log.items))
        return fit_factors(ratings, self.size, self._penalties(shrinkage), seed=seed, tolerance=tolerance)

    def _penalties(self, shrinkage: float) -> Shrinkage:
        return Shrinkage(shrinkage)

    def _fit_exposure(self, split: Split, seed: int) -> None:
        """Fit what ``_covariate`` needs: nothing here."""

    def _covariate(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64] | None:  # noqa: ARG002
        """Return what else explains the ratings of pairs of indices, with a slope a user, (n,): nothing here."""
        return None
