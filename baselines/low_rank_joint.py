"""Low-rank joint model of data and mask (Sportisse, Boyer & Josse 2018, section 3.2): a comparator for tables."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

_N_PENALTIES = 30
_SMALLEST_PENALTY = 1e-3
_WITHHELD = 0.05


class LowRankJointImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""Complete the matrix [X, S] of a table and its mask by one of low rank, so that the mask informs the values.

    Minimises :math:`\tfrac12 \|W \odot ([X, S] - T)\|_F^2 + \lambda \|T\|_*` over T, with the nuclear norm and W being
    1 where an entry is known: soft-thresholded singular values, with missing entries replaced by those of T until
    nothing moves (Mazumder, Hastie & Tibshirani 2010). S has a column for each feature with missing values, as in the
    authors' code: one that is always 1 says nothing of the values, and would be an intercept.

    Parameters
    ----------
    centre : bool
        Whether features enter less their observed means. Without, what is missing shrinks towards 0: good where 0 is
        known to be the mean of the complete data, as in the experiments of the paper that compares with it.
    penalty : float, optional
        None: of 30 from the largest that leaves anything down to a thousandth of it, the one with the least error on a
        twentieth of the known entries of [X, S], withheld at random (A.1 of Ipsen, Mattei & Frellsen 2021).
    max_iter : int
        Iterations for one penalty.
    tol : float
        Relative change of T below which it stands.
    random_state : int, RandomState or None
        Which entries are withheld.
    """

    def __init__(
        self,
        *,
        centre: bool = True,
        penalty: float | None = None,
        max_iter: int = 10_000,
        tol: float = 1e-6,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.centre = centre
        self.penalty = penalty
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: ARG002
        """Choose the penalty, (n_rows, n_features) with NaN where a value is missing, and complete the table."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: ArrayLike, y: Any = None, **_: Any) -> NDArray[np.float64]:  # noqa: ARG002
        """Return the completed table; observed values stay."""
        table = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        observed = ~np.isnan(table)
        self._means = np.nanmean(table, axis=0) if self.centre else np.zeros(table.shape[1])
        mask = observed[:, ~observed.all(axis=0)]
        joint = np.hstack([np.where(observed, table - self._means, 0.0), mask])
        known = np.hstack([observed, np.ones_like(mask)])
        self.penalty_ = self._choose(joint, known) if self.penalty is None else self.penalty
        completed = self._complete(joint, known, self.penalty_, np.zeros_like(joint))
        self._rows = completed[:, : table.shape[1]] + self._means
        return np.asarray(np.where(observed, table, self._rows))

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the completed table that was fitted: the model has no form for other rows (ValueError)."""
        check_is_fitted(self, "penalty_")
        table = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        if table.shape != self._rows.shape:
            fitted = self._rows.shape
            raise ValueError(f"the low-rank model completes the table it was fitted to, {fitted}; found {table.shape}")
        return np.asarray(np.where(np.isnan(table), self._rows, table))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _choose(self, joint: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
        rng = check_random_state(self.random_state)
        withheld = known & (rng.random_sample(known.shape) < _WITHHELD)
        left = known & ~withheld
        largest = np.linalg.norm(np.where(left, joint, 0), 2)
        penalties = largest * np.geomspace(1, _SMALLEST_PENALTY, _N_PENALTIES)
        completed, errors = np.zeros_like(joint), []
        for penalty in penalties:
            completed = self._complete(joint, left, penalty, completed)
            errors.append(np.square(completed - joint)[withheld].mean())
        return float(penalties[int(np.argmin(errors))])

    def _complete(
        self, joint: NDArray[np.float64], known: NDArray[np.bool_], penalty: float, start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return T, sought from ``start``."""
        low_rank = start
        for _ in range(self.max_iter):
            filled = np.where(known, joint, low_rank)
            # Right singular vectors from the small side: tables are tall.
            squares, right = np.linalg.eigh(filled.T @ filled)
            kept = squares > penalty**2
            shrunk = 1 - penalty / np.sqrt(squares[kept])
            moved = filled @ (right[:, kept] * shrunk) @ right[:, kept].T
            change = float(np.linalg.norm(moved - low_rank)) / (float(np.linalg.norm(low_rank)) or 1.0)
            low_rank = moved
            if change < self.tol:
                break
        return low_rank
