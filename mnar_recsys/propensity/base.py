"""P(s = 1): what every model of who rates what offers."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError, NotFittedError


class PropensityModel(ABC):
    """The probability that a cell is rated by choice, perhaps given its rating.

    Rated means rated in ``split.mnar_train``: where a share f of the self-selected ratings is held out, the
    probability that a cell is among those is f / (1 - f) times as large. Works on indices, 0..N-1 and 0..P-1, of the
    split it was fitted to: propensities weigh ratings of that split. No clipping happens here (see
    ``diagnostics.clip``); probabilities lie strictly between 0 and 1, or are 1 where everything is rated.
    """

    needs_labels: ClassVar[bool] = False
    """Whether ``fit`` reads ``split.mcar_labels``."""
    needs_features: ClassVar[bool] = False
    """Whether ``fit`` reads user or item features."""
    depends_on_rating: bool = False
    """Whether ``propensity`` needs the cells' ratings; such a model speaks of rated cells only."""

    _log: RatingLog | None = None

    def fit(self, split: Split, *, seed: int) -> Self:
        """Fit to who rated what in ``split.mnar_train``; ``seed`` decides everything random.

        Raises
        ------
        DataError
            If the split holds a test, or lacks ratings, labels or features that the model needs.
        ConfigError
            If a setting does not fit the data.
        DivergedError
            If a solver does not settle.
        """
        name, log = type(self).__name__, split.mnar_train
        if split.mcar_test is not None:
            raise DataError(
                f"propensities must not be fitted with the test; found {split.mcar_test.n_ratings} ratings in "
                "mcar_test. Fit to split.for_training()"
            )
        if not log.n_ratings:
            raise DataError(f"{name} needs ratings given by choice; mnar_train has none. Give some")
        if self.needs_labels:
            require_labels(split, name)
        if self.needs_features and log.user_features is None and log.item_features is None:
            raise DataError(
                f"{name} needs user or item features; mnar_train has neither. Attach some with "
                "log.with_features(...), or choose propensities that need none"
            )
        self._fit(split, seed)
        self._log = log
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
            If an index is out of range, the arrays are not equally long, or the model depends on the rating and
            ``ratings`` (n,), in rating points, are not given.
        """
        log = self.log
        check_same_length(rows=rows, columns=columns)
        for label, indices, count in (("row", rows, log.n_users), ("column", columns, log.n_items)):
            if len(indices) and (indices.min() < 0 or indices.max() >= count):
                raise DataError(
                    f"{label} indices must be from 0 to {count - 1}; found {indices.min()}..{indices.max()}. "
                    "Propensities speak of users and items of the split only"
                )
        if not self.depends_on_rating:
            return self._propensity(rows, columns)
        if ratings is None:
            raise DataError(f"{type(self).__name__} needs the cells' ratings; give ratings=")
        check_same_length(rows=rows, ratings=ratings)
        return self._propensity_given(rows, columns, ratings)

    def of_log(self, log: RatingLog) -> NDArray[np.float64]:
        """Return the propensity of every rating of a log of the same split, (n,), in its order.

        Raises
        ------
        DataError
            If the log's users or items are not those fitted to: its indices would mean others.
        """
        if log.users != self.log.users or log.catalogue != self.log.catalogue:
            raise DataError(
                f"a log's users and items must be those of the split fitted to; found {log.n_users} users and "
                f"{log.n_items} items, or other ids. Take the log from that split"
            )
        return self.propensity(log.rows, log.items, log.ratings)

    @property
    def log(self) -> RatingLog:
        """The log fitted to; raises NotFittedError before ``fit``."""
        if self._log is None:
            raise NotFittedError(f"{type(self).__name__} must be fitted first; call fit(split, seed=...)")
        return self._log

    @abstractmethod
    def _fit(self, split: Split, seed: int) -> None:
        """Fit. The base class has checked that all that is needed is there."""

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return P(s = 1), (n,); for models that do not depend on the rating."""
        raise NotImplementedError

    def _propensity_given(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer], ratings: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return P(s = 1 | rating), (n,); for models that depend on the rating."""
        raise NotImplementedError


def require_labels(split: Split, who: str) -> RatingLog:
    """Return the MCAR labels; raise DataError if there are none."""
    if split.mcar_labels is None or not split.mcar_labels.n_ratings:
        raise DataError(
            f"{who} needs randomly collected ratings for the marginal of all ratings; the split "
            "has no mcar_labels. Give some, or choose propensities that need none"
        )
    return split.mcar_labels
