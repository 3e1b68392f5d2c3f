"""What labels are worth without any model of selection: two uses of them that need none."""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.alternating_ridge import Factors, Ratings, Shrinkage, fit_factors
from baselines.base import Baseline, require_labels, require_valid
from baselines.fitting import check_positive, squared_error
from baselines.mf import Mf
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError
from mnar_recsys.rng import numpy_generator

_MIN_LABELS = 20
_SAME = 1e-9  # rating points: predictions that differ less have no slope
_FOLDS = 5
FACTOR_GRID = (2.0, 4.0, 8.0, 16.0)
"""Candidate shrinkages of factors, in standard deviations of the labels; with the last, no factor survives in a log of
a few ratings a user."""
OFFSET_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Candidate shrinkages of offsets, in ratings."""


class MfRecalibrated(Mf):
    r"""``Mf`` whose predictions are mapped affinely to the MCAR labels.

    Predicts :math:`a + b\,\hat x_{ui}` with the least-squares a and b over the labels' cells; b is 1 where there
    are fewer than 20 labels or where predictions do not differ. What a method gains over this is more than level
    and spread. Settings are those of ``Mf``; its own squared error is what tuning minimises.

    Raises
    ------
    DataError
        On fitting to a split without labels.
    ConfigError
        If a setting is not above 0.
    """

    uses_labels = True

    def _fit(self, split: Split, seed: int) -> None:
        labels = require_labels(split, "mf_recalibrated")
        super()._fit(split, seed)
        self.intercept, self.slope = calibrate(self._uncalibrated(labels), labels.values)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.intercept + self.slope * super()._predict(rows, columns)

    def _validation_loss(self, split: Split) -> float:
        """Return the squared error of ``Mf`` itself: the map fits all ratings, not those given by choice."""
        valid = require_valid(split)
        return squared_error(valid, self._uncalibrated(valid))

    def _uncalibrated(self, log: RatingLog) -> NDArray[np.float64]:
        return super()._predict(log.rows.astype(np.int64), log.items.astype(np.int64))


def calibrate(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Return the intercept and slope of the least-squares line from predictions to ratings, each (n,).

    The slope is 1 with fewer than 20 pairs, or where all predictions are equal.
    """
    centred = predicted - predicted.mean()
    slope = 1.0
    if len(predicted) >= _MIN_LABELS and np.abs(centred).max() > _SAME:
        slope = float(centred @ truth / (centred @ centred))
    return float(truth.mean() - slope * predicted.mean()), slope


class MfLabels(Baseline):
    r"""Matrix factorization with offsets, fitted to the MCAR labels alone.

    Minimises :math:`\frac12 \sum (x_{ui} - \mu - a_u - b_i - p_u^T q_i)^2 + \frac{\lambda}{2} (\|p\|^2 + \|q\|^2) +
    \frac{\kappa}{2} (\|a\|^2 + \|b\|^2)` over the labels, with :math:`\mu` their mean, by exact solves in turn. lambda,
    from ``FACTOR_GRID``, and kappa, from ``OFFSET_GRID``, are chosen by five-fold cross-validation on the labels, whose
    squared error is also what tuning minimises; with few labels they leave little but the mean.

    Parameters
    ----------
    size
        Number of factors.

    Raises
    ------
    ConfigError
        If the size is not above 0.
    DataError
        On fitting to a split with fewer than 5 labels.
    """

    uses_labels = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({"size": (2, 5, 10)})

    factors: Factors
    chosen: Shrinkage
    """The shrinkages of the last fit."""
    error: float
    """Their cross-validated squared error, in squared rating points: lower is better."""

    def __init__(self, *, size: int = 5) -> None:
        check_positive(size=size)
        self.size = size

    def _fit(self, split: Split, seed: int) -> None:
        labels = require_labels(split, "mf_labels")
        if labels.n_ratings < _FOLDS:
            raise DataError(
                f"mcar_labels must be at least {_FOLDS} ratings to choose a shrinkage; found {labels.n_ratings}. "
                "Give more"
            )
        spread = max(float(labels.values.std()), _SAME)
        candidates = [Shrinkage(factor * spread, offset) for factor, offset in product(FACTOR_GRID, OFFSET_GRID)]
        errors = [self._cross_validate(labels, candidate, seed) for candidate in candidates]
        best = int(np.argmin(errors))
        self.chosen, self.error = candidates[best], errors[best]
        self.factors = fit_factors(Ratings.of_log(labels), self.size, self.chosen, seed=seed)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.factors.predict(rows, columns)

    def _validation_loss(self, split: Split) -> float:  # noqa: ARG002 - ratings given by choice say nothing here
        """Return the cross-validated squared error on the labels, in squared rating points."""
        return self.error

    def _cross_validate(self, labels: RatingLog, shrinkage: Shrinkage, seed: int) -> float:
        fold = numpy_generator(seed, "mf-labels", "folds").permutation(labels.n_ratings) % _FOLDS
        errors = np.empty(labels.n_ratings)
        for out in (fold == k for k in range(_FOLDS)):
            rest = labels.select_ratings(~out)
            found = fit_factors(Ratings.of_log(rest), self.size, shrinkage, seed=seed)
            predicted = labels.scale.clip(found.predict(labels.rows[out], labels.items[out]))
            errors[out] = np.square(predicted - labels.values[out])
        return float(errors.mean())
