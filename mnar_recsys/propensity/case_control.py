"""Logistic regression of the mask on rated cells and a sample of the unrated ones."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mnar_recsys.data import RatingLog
from mnar_recsys.errors import DataError, DivergedError
from mnar_recsys.propensity.mask import sample_places, sample_unrated

Design = Callable[[NDArray[np.int64], NDArray[np.int64]], Any]
"""Covariates of cells: rows (n,), columns (n,) -> dense or sparse matrix (n, F)."""

_MAX_STEPS = 1000


@dataclass(frozen=True, eq=False)
class CaseControl:
    """Rated and unrated cells, each drawn uniformly from their kind but at different rates."""

    rows: NDArray[np.int64]  # (n,)
    columns: NDArray[np.int64]  # (n,)
    is_rated: NDArray[np.bool_]  # (n,)
    log_rate_ratio: float
    """log of (share of the rated cells drawn / share of the unrated cells drawn)."""


@dataclass(frozen=True, eq=False)
class LogOdds:
    """Log-odds of being rated: ``intercept + covariates @ weights``, over all cells."""

    intercept: float
    weights: NDArray[np.float64]  # (F,)


def draw_case_control(
    log: RatingLog, *, unrated_per_rating: float, max_cells: int, rng: np.random.Generator
) -> CaseControl:
    """Draw ratings and ``unrated_per_rating`` times as many unrated cells of ``log``, without replacement.

    Of both only as large a part as makes ``max_cells`` in all.

    Raises
    ------
    DataError
        If every cell is rated: then there is nothing to tell apart.
    """
    n_unrated = log.n_users * log.n_items - log.n_ratings
    if not n_unrated:
        raise DataError(f"a regression of the mask needs unrated cells; all {log.n_ratings} are rated. Use uniform")
    wanted = min(float(n_unrated), unrated_per_rating * log.n_ratings)
    kept = min(1.0, max_cells / (log.n_ratings + wanted))
    n_rated = log.n_ratings if kept == 1.0 else max(1, round(kept * log.n_ratings))
    rated = log.cells if n_rated == log.n_ratings else log.cells[sample_places(log.n_ratings, n_rated, rng)]
    unrated = sample_unrated(log, max(1, round(kept * wanted)), rng)
    cells = np.concatenate([rated, unrated])
    return CaseControl(
        rows=cells // log.n_items,
        columns=cells % log.n_items,
        is_rated=np.arange(len(cells)) < n_rated,
        log_rate_ratio=float(np.log(n_rated / log.n_ratings) - np.log(len(unrated) / n_unrated)),
    )


def fit_log_odds(sample: CaseControl, design: Design, *, ridge: float, solver: str) -> LogOdds:
    """Return the log-odds of being rated over all cells, from a case-control sample.

    A logistic regression on the sample has the log-odds of all cells plus the log of the ratio of the sampling rates,
    which is taken off the intercept (Prentice and Pyke, Logistic disease incidence models and case-control studies,
    Biometrika 66, 1979).

    Parameters
    ----------
    ridge
        Penalty on half the squared weights, above 0.
    solver
        Of scikit-learn's ``LogisticRegression``.

    Raises
    ------
    DivergedError
        If the solver does not settle.
    """
    regression = LogisticRegression(C=1.0 / ridge, solver=solver, max_iter=_MAX_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            regression.fit(design(sample.rows, sample.columns), sample.is_rated)
        except ConvergenceWarning as warning:
            raise DivergedError(
                f"the regression of the mask did not settle in {_MAX_STEPS} steps at ridge {ridge:g}; raise it"
            ) from warning
    intercept = float(regression.intercept_[0]) - sample.log_rate_ratio
    return LogOdds(intercept, np.asarray(regression.coef_[0], dtype=np.float64))
