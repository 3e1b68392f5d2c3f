"""P(s = 1): what every model of who rates what offers."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError, NotFittedError


class PropensityModel(ABC):
    """The probability that a cell is rated by choice, perhaps given its rating.

    Works on indices, 0..N-1 and 0..P-1, of the split it was fitted to: propensities weigh ratings of that split. No
    clipping happens here (see ``diagnostics.clip``); probabilities lie strictly between 0 and 1, or are 1 where
    everything is rated.
    """

    needs_labels: ClassVar[bool] = False
    """Whether ``fit`` reads ``split.mcar_labels``."""
    needs_features: ClassVar[bool] = False
    """Whether ``fit`` reads user or item features."""
    depends_on_rating: ClassVar[bool] = False
    """Whether ``propensity`` needs the cells' ratings; such a model speaks of rated cells only."""

    _log: RatingLog | None = None

    def fit(self, split: Split, *, seed: int) -> Self:
        """Fit to who rated what in ``split.mnar_train``.

        Raises
        ------
        DataError
            If the split holds a test, or lacks labels or features that the model needs.
        """
        if split.mcar_test is not None:
            raise DataError(
                f"propensities must not be fitted with the test; found {split.mcar_test.n_ratings} ratings in "
                "mcar_test. Fit to split.for_training()"
            )
        if self.needs_labels and not split.n_labels:
            raise DataError(
                f"{type(self).__name__} needs randomly collected ratings for the marginal of all ratings; the split "
                "has no mcar_labels. Give some, or choose propensities that need none"
            )
        self._fit(split, seed)
        self._log = split.mnar_train
        return self

    def propensity(
        self,
        rows: NDArray[np.integer],
        columns: NDArray[np.integer],
        ratings: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float64]:
        """Return P(s = 1) of cells given by index, (n,).

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        DataError
            If the model depends on the rating and ``ratings`` (n,), in rating points, are not given.
        """
        if self._log is None:
            raise NotFittedError(f"{type(self).__name__} must be fitted first; call fit(split, seed=...)")
        if self.depends_on_rating and ratings is None:
            raise DataError(f"{type(self).__name__} needs the cells' ratings; give ratings=")
        return self._propensity(rows, columns, ratings)

    def of_log(self, log: RatingLog) -> NDArray[np.float64]:
        """Return the propensity of every rating of a log of the same split, (n,), in its order."""
        return self.propensity(log.rows, log.items, log.ratings)

    @abstractmethod
    def _fit(self, split: Split, seed: int) -> None: ...

    @abstractmethod
    def _propensity(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer], ratings: NDArray[np.floating] | None
    ) -> NDArray[np.float64]: ...
