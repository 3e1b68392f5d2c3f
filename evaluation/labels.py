"""Ratings cut in two at a threshold: labels, the probability of a positive one, and its errors."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from evaluation.contributions import check_probabilities, require_scored
from mnar_recsys.checks import check_same_length
from mnar_recsys.data import RatingLog, RatingScale, Split
from mnar_recsys.errors import ConfigError, DataError

# Levels such as .1, .2, ... carry rounding errors.
_SLACK = 1e-9
LABEL_SCALE = RatingScale(0.0, 1.0, 1.0)
"""On which a predicted mean is the probability of a 1."""


def binarise(log: RatingLog, threshold: float) -> NDArray[np.bool_]:
    """Return whether each rating is at least ``threshold``, in rating points, (n,).

    Raises
    ------
    ConfigError
        If the scale has nothing on one side of the threshold.
    """
    _check_threshold(log.scale, threshold)
    return np.asarray(log.values >= threshold - _SLACK)


def as_labels(log: RatingLog, threshold: float) -> RatingLog:
    """Return the log with 1 for ratings of at least ``threshold`` and 0 for others, on a scale of these two levels.

    Raises
    ------
    ConfigError
        As ``binarise``.
    """
    labels = binarise(log, threshold).astype(np.float32)
    return replace(log, ratings=labels, scale=LABEL_SCALE, notes=(*log.notes, f"1 stands for {threshold:g} or more"))


def positive_probability(scale: RatingScale, level_probabilities: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Return P(rating >= threshold) of each pair from the probabilities of its levels, (n, R) -> (n,).

    Raises
    ------
    DataError
        If the scale has no levels, or the probabilities are not distributions over them.
    ConfigError
        As ``binarise``.
    """
    _check_threshold(scale, threshold)
    table = check_probabilities(level_probabilities)
    if scale.levels is None or table.shape[1] != len(scale.levels):
        raise DataError(f"level probabilities must fit {scale.describe()}; found {table.shape[1]} columns")
    # The sum of the levels above may pass 1 by a rounding error.
    return np.asarray(np.minimum(table[:, scale.levels >= threshold - _SLACK].sum(axis=1), 1.0))


def label_squared_error(labels: NDArray[np.bool_], probability: ArrayLike) -> NDArray[np.float64]:
    """Return (P(positive) - label)^2 per pair, (n,), the label 0 or 1; lower is better."""
    return np.asarray(np.square(_checked_probability(labels, probability) - labels))


def label_loss(labels: NDArray[np.bool_], probability: ArrayLike) -> NDArray[np.float64]:
    """Return -log P(label) per pair, (n,), in nats; lower is better, infinite where the label was ruled out."""
    p = _checked_probability(labels, probability)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(np.where(labels, p, 1.0 - p)))


@dataclass(frozen=True)
class PositiveMap:
    """P(rating >= threshold) as a logistic function of a predicted mean rating, for methods without probabilities.

    Platt, Probabilistic outputs for support vector machines, 1999: one slope, one intercept, fitted to ratings that the
    method was not fitted to. It is monotone: ranking by it is
    ranking by the mean, unless the slope comes out negative.
    """

    threshold: float
    slope: float
    """Log-odds a rating point."""
    intercept: float

    @classmethod
    def fit(
        cls, split: Split, mean: ArrayLike, *, threshold: float, role: Literal["mcar_labels", "mnar_valid"]
    ) -> Self:
        """Fit to ratings of one role of a split without its test.

        Parameters
        ----------
        split
            As a method is given it.
        mean
            Predicted mean of every rating of that role, (n,), in rating points and in the log's order, from a fit
            that did not use these ratings.
        role
            ``mcar_labels`` (the level is then that of all cells) or ``mnar_valid`` (the level is then that of the
            ratings people choose to give, which is too high where people rate what they like).

        Raises
        ------
        DataError
            If the split holds a test, lacks that role, or its ratings are all on one side of the threshold.
        """
        if split.mcar_test is not None:
            raise DataError(
                f"a map to probabilities must not see the test; found {split.mcar_test.n_ratings} ratings in "
                "mcar_test. Fit to split.for_training()"
            )
        log = getattr(split, role)
        if log is None:
            raise DataError(f"a map to probabilities needs {role}; this split has none")
        labels, predicted = binarise(log, threshold), require_scored("predictions", mean)
        check_same_length(ratings=labels, predictions=predicted)
        if labels.all() or not labels.any():
            raise DataError(
                f"a map to probabilities needs ratings on both sides of {threshold:g}; {role} has "
                f"{int(labels.sum())} of {len(labels)} at or above it"
            )
        # Its ridge of 1 on the slope keeps separable ratings finite, and is nothing beside hundreds of ratings.
        fitted = LogisticRegression().fit(predicted[:, None], labels)
        return cls(threshold, float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))

    def probability(self, mean: ArrayLike) -> NDArray[np.float64]:
        """Return P(rating >= threshold) of pairs with these predicted means, (n,)."""
        return np.asarray(expit(self.intercept + self.slope * require_scored("predictions", mean)))


def _check_threshold(scale: RatingScale, threshold: float) -> None:
    if not scale.low < threshold <= scale.high:
        raise ConfigError(
            f"the threshold must be above {scale.low:g} and at most {scale.high:g}, the ends of the scale; "
            f"found {threshold:g}"
        )


def _checked_probability(labels: NDArray[np.bool_], probability: ArrayLike) -> NDArray[np.float64]:
    p = require_scored("probabilities of a positive rating", probability)
    check_same_length(labels=labels, probabilities=p)
    if ((p < 0.0) | (p > 1.0)).any():
        place = int(np.flatnonzero((p < 0.0) | (p > 1.0))[0])
        raise DataError(f"probabilities must be between 0 and 1; found {p[place]:g} at position {place}")
    return p
