"""Intervals of guaranteed coverage, from randomly collected ratings that no fit has seen (split conformal prediction).

A score says how badly a rating fits its prediction. The interval of a pair holds every rating whose score is not above
a quantile of the scores of n labels. If the pair and the labels are exchangeable, its score is equally likely to have
any of the n + 1 ranks, so the interval holds the rating with probability at least the coverage asked for, whatever the
model and however few the labels (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005).

Exchangeable means: drawn at random like the labels, from the same people and items, and not rated by choice. It is a
promise about such pairs on average; not about each person, nor about pairs picked by their predictions, such as the
best n, nor about ratings given by choice. Labels that were trained on are no good: the model fits them too well.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.data import RatingLog, count_trained_labels
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction.predictions import UNKNOWN, Predictions
from mnar_recsys.prediction.predictor import Predictor

# 20 labels and a coverage of .95 must not need a rank of 20.0000001.
_SLACK = 1e-9


@dataclass(frozen=True)
class ConformalIntervals:
    """Calibrated intervals of a fitted model; build one with ``calibrate``."""

    predictor: Predictor
    coverage: float
    """probability, at least, that an interval holds its rating"""
    threshold: float
    """highest score of a rating inside its interval"""
    n_labels: int
    """labels calibrated with"""
    n_left_out: int
    """labels left out, since the person had rated the item by choice as well: no pair to predict is like them"""

    @classmethod
    def calibrate(
        cls,
        predictor: Predictor,
        labels: RatingLog,
        coverage: float = 0.9,
        *,
        by_user: bool = False,
        source: str = "labels: ",
    ) -> Self:
        """Calibrate on held-back labels.

        On levels the score of level r is minus its smaller tail, -min(P(x <= r), P(x >= r)), so that an interval grows
        around the median by what the model finds least improbable (distributional conformal prediction; Chernozhukov,
        Wuthrich & Zhu 2021). Tails differ from pair to pair, so ties are rare although ratings are few; where there are
        some, intervals are too wide rather than too narrow. On a real interval the score is the distance outside the
        model's own interval of this coverage (conformalized quantile regression; Romano, Patterson & Candes 2019).

        Parameters
        ----------
        predictor : Predictor
            Of the model, as it will predict.
        labels : RatingLog
            Ratings of pairs drawn at random, that were not trained on.
        coverage : float
            Between 0 and 1.
        by_user : bool
            For surveys in which each person asked answers several times. Ratings of one person are alike, so such
            labels are exchangeable with a pair of somebody else only person by person: people then count equally, and
            there must be enough of them (Lee, Barber & Willett 2023).
        source : str
            What messages begin with.

        Raises
        ------
        ConfigError
            If the coverage is not between 0 and 1.
        DataError
            If labels were trained on, have another scale, or are too few: the coverage needs
            ceil(1 / (1 - coverage)) - 1 of them, or people with ``by_user``.
        """
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage must be between 0 and 1; found {coverage:g}")
        log = predictor.log
        if labels.scale != log.scale:
            raise DataError(
                f"{source}the scale must be the model's, {log.scale.describe()}; found {labels.scale.describe()}"
            )
        trained = count_trained_labels(log, labels)
        if trained:
            raise DataError(f"{source}must hold no rating that the model was trained on; found {trained}. Remove them")
        users = log.users.index(labels.users.ids)[labels.rows]
        items = log.catalogue.index(labels.catalogue.ids)[labels.items]
        cells = np.where((users == UNKNOWN) | (items == UNKNOWN), -1, users * log.n_items + items)
        kept = ~np.isin(cells, log.cells)
        units = labels.rows[kept] if by_user else np.arange(int(kept.sum()))
        _check_enough(units, coverage, "people with labels" if by_user else "labels", source)
        found = cls(predictor, coverage, math.inf, len(units), labels.n_ratings - len(units))  # threshold still to come
        scores = found._scores(found._predict(users[kept], items[kept]), labels.values[kept])
        return replace(found, threshold=conformal_quantile(scores, units, coverage))

    @property
    def needs_levels(self) -> bool:
        """Whether ``bounds`` needs the probability of each level."""
        return self.predictor.log.scale.levels is not None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of the quantiles that ``bounds`` needs, as the last ones predicted."""
        return () if self.needs_levels else (0.5 - self.coverage / 2, 0.5 + self.coverage / 2)

    def predict(self, users: ArrayLike, items: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ends of the intervals of pairs of original ids: (n,), (n,) -> (n,), (n,) in rating points."""
        log = self.predictor.log
        user, item = log.users.index(users), log.catalogue.index(items)
        check_same_length(users=user, items=item)
        return self.bounds(self._predict(user, item))

    def bounds(self, predicted: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ends, both inside, of the intervals of predicted pairs: (n,), (n,) in rating points."""
        scale = self.predictor.log.scale
        if scale.levels is None:
            low, high = predicted.quantiles[-2:].astype(np.float64)
            # A model too unsure of itself gets narrower intervals, but never ones that are turned inside out.
            growth = np.maximum(self.threshold, (low - high) / 2)
            return scale.clip(low - growth), scale.clip(high + growth)
        tails = _smaller_tails(predicted)
        inside = -tails <= self.threshold
        inside[np.arange(len(tails)), tails.argmax(1)] = True  # the median, always
        first, last = inside.argmax(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1)
        return scale.levels[first], scale.levels[last]

    def _predict(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Predictions:
        return self.predictor.predict(users, items, probabilities=self.probabilities, levels=self.needs_levels)

    def _scores(self, predicted: Predictions, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the score of each pair's rating, higher where it fits worse: (n,)."""
        if self.needs_levels:
            index = self.predictor.log.scale.level_index(ratings)
            return np.asarray(-_smaller_tails(predicted)[np.arange(len(index)), index])
        low, high = predicted.quantiles[-2:].astype(np.float64)
        return np.asarray(np.maximum(low - ratings, ratings - high))


def conformal_quantile(scores: NDArray[np.float64], units: NDArray[np.integer], coverage: float) -> float:
    """Return the smallest score s that, with one more unit of score infinity, has ``coverage`` of the weight up to it.

    Parameters
    ----------
    scores, units
        (n,) each. Units count equally, and share their weight among their scores; with one score each, s is the
        ceil((n + 1) coverage)-th smallest.
    """
    _, unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    reached = np.cumsum(1 / ((len(sizes) + 1) * sizes[unit[order]]))
    place = np.searchsorted(reached, coverage - _SLACK)
    return float(scores[order[min(int(place), len(order) - 1)]])


def _check_enough(units: NDArray[np.integer], coverage: float, what: str, source: str) -> None:
    """Refuse fewer units than the smallest n with n / (n + 1) >= coverage: the quantile would be infinite."""
    needed, found = math.ceil(coverage / (1 - coverage) - _SLACK), len(np.unique(units))
    if found < needed:
        raise DataError(
            f"{source}a coverage of {coverage:g} needs at least {needed} {what} in cells not rated by choice; "
            f"found {found}. Ask for less coverage, or collect more"
        )


def _smaller_tails(predicted: Predictions) -> NDArray[np.float64]:
    """Return min(P(x <= r), P(x >= r)) of each level: (n, R), small tails to all their digits."""
    if predicted.levels is None:
        raise ConfigError("conformal intervals on levels need the probability of each level")
    shares = predicted.levels.astype(np.float64)
    return np.minimum(np.cumsum(shares, axis=1), np.cumsum(shares[:, ::-1], axis=1)[:, ::-1])
