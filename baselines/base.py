"""What every method of the comparison offers, and what is the same in all of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError, NotFittedError


class Baseline(ABC):
    """A rating predictor: a split in, arrays out.

    ``fit`` takes the roles a method may see and refuses a split that still holds the test: a label of the test
    cannot reach training by accident. ``seed`` decides everything random in a fit.

    Users and items are given by their original ids. Ids that the split does not know are predicted too: to a
    subclass an unknown user is index N and an unknown item index P, so that tables of factors and offsets have one
    row more than there are users or items, and the last stays at what is known without that user or item.
    """

    uses_labels: ClassVar[bool] = False
    """Whether ``fit`` reads ``split.mcar_labels``."""
    has_level_probabilities: ClassVar[bool] = False
    """Whether ``level_probabilities`` is there, on a scale with levels."""

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    """Arguments of the constructor and the values that tuning tries."""

    _log: RatingLog | None = None
    _n_labels: int = 0

    def fit(self, split: Split, *, seed: int) -> Self:
        """Fit to the self-selected ratings, and to the labels if ``uses_labels``.

        Raises
        ------
        DataError
            If the split holds a test, or lacks labels that the method needs.
        ConfigError
            If a setting does not fit the data.
        DivergedError
            If the loss stops being finite, or a solver does not settle.
        """
        refuse_test(split)
        self._fit(split, seed)
        self._log = split.mnar_train
        self._n_labels = split.n_labels if self.needs_labels else 0
        return self

    def predict(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the predicted rating of each (user, item) pair, (n,), in rating points, inside the scale.

        Of a method that only ranks (``predicts_ratings``), a score.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        DataError
            If users and items are not equally long, or ids are of another kind than the log's.
        """
        predicted = self._predict(*self._indices(users, items))
        return self.log.scale.clip(predicted) if self.predicts_ratings else predicted

    def level_probabilities(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the probability of each rating level of each pair, (n, R).

        Raises
        ------
        DataError
            If the method has none (``has_level_probabilities``); else as ``predict``.
        """
        if not self.has_level_probabilities:
            raise DataError(f"{type(self).__name__} predicts means only; it has no level probabilities")
        return self._level_probabilities(*self._indices(users, items))

    def validation_loss(self, split: Split) -> float:
        """Return what tuning minimises: the method's own estimate of its error, from ``split.mnar_valid``.

        Here the mean squared error, in squared rating points; a method that weighs ratings weighs these too. The split
        must be the one fitted to.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        DataError
            If the split has no ``mnar_valid``.
        """
        _ = self.log
        return self._validation_loss(split)

    @property
    def log(self) -> RatingLog:
        """The log fitted to; raises NotFittedError before ``fit``."""
        if self._log is None:
            raise NotFittedError(f"{type(self).__name__} must be fitted before it predicts; call fit(split, seed=...)")
        return self._log

    @property
    def predicts_ratings(self) -> bool:
        """Whether predictions are ratings; else they are scores, of which only the order means anything."""
        return True

    @property
    def needs_labels(self) -> bool:
        """Whether this instance, with its settings, reads ``mcar_labels``."""
        return self.uses_labels

    @property
    def n_labels(self) -> int:
        """How many MCAR labels the last fit could read; every row of results carries it."""
        return self._n_labels

    @abstractmethod
    def _fit(self, split: Split, seed: int) -> None:
        """Fit. ``split`` holds no test; all its logs share their indices."""

    @abstractmethod
    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ratings of pairs of indices 0..N and 0..P, where N and P stand for the unknown; ``predict`` clips."""

    def _validation_loss(self, split: Split) -> float:
        """Return the mean squared error on ``mnar_valid``; methods with another estimate of their error override it."""
        valid = require_valid(split)
        predicted = self.log.scale.clip(self._predict(valid.rows.astype(np.int64), valid.items.astype(np.int64)))
        return float(np.square(predicted - valid.ratings).mean())

    def _level_probabilities(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def _indices(
        self, users: NDArray[np.generic], items: NDArray[np.generic]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        log = self.log
        rows, columns = log.users.index(users), log.catalogue.index(items)
        check_same_length(users=rows, items=columns)
        return np.where(rows < 0, log.n_users, rows), np.where(columns < 0, log.n_items, columns)


def refuse_test(split: Split) -> None:
    """Raise DataError if the split holds test ratings: nothing that is fitted may see them."""
    if split.mcar_test is not None:
        raise DataError(
            f"a method must not see the test; found {split.mcar_test.n_ratings} ratings in mcar_test. "
            "Fit to split.for_training()"
        )


def require_valid(split: Split) -> RatingLog:
    """Return the held-out self-selected ratings; raise DataError if there are none."""
    if split.mnar_valid is None or split.mnar_valid.n_ratings == 0:
        raise DataError("validation needs held-out ratings; the split has no mnar_valid. Use split.hold_out(...)")
    return split.mnar_valid


def require_labels(split: Split, who: str) -> RatingLog:
    """Return the MCAR labels; raise DataError if there are none."""
    if split.mcar_labels is None or split.mcar_labels.n_ratings == 0:
        raise DataError(f"{who} needs randomly collected ratings to train on; the split has no mcar_labels. Give some")
    return split.mcar_labels
