"""Propensities from Bayes' rule: the ratings people gave by choice against those of a random collection."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.propensity.base import PropensityModel, require_labels
from mnar_recsys.propensity.checks import positive
from mnar_recsys.propensity.mask import share_rated


class NaiveBayes(PropensityModel):
    r"""The propensity of a rating level, whoever gave it to whatever item.

    .. math:: P(s = 1 | r) = P(r | s = 1) P(s = 1) / P(r)

    with P(r | s = 1) and P(s = 1) from ``mnar_train`` and P(r) from ``mcar_labels`` (Schnabel et al., Recommendations
    as treatments: debiasing learning and evaluation, ICML 2016, section 5). Both distributions of levels are smoothed,
    which the paper's are not, so that a level that the few labels lack has a propensity. Estimates above 1 become 1:
    they say that every cell with that rating is rated, and more, which only noise in few labels can.

    Parameters
    ----------
    smoothing
        Pseudo-counts of each level, above 0 (1 is Laplace's).

    Raises
    ------
    ConfigError
        If ``smoothing`` is not a number above 0.
    """

    needs_labels = True
    depends_on_rating = True

    by_level: NDArray[np.float64]
    """P(s = 1 | level), (R,)."""

    def __init__(self, *, smoothing: float = 1.0) -> None:
        self.smoothing = positive("smoothing", smoothing)

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        log, labels = split.mnar_train, require_labels(split, type(self).__name__)
        chosen, all_cells = level_shares(log, self.smoothing), level_shares(labels, self.smoothing)
        self.by_level = np.minimum(chosen * share_rated(log) / all_cells, 1.0)

    def _propensity_given(
        self,
        rows: NDArray[np.integer],  # noqa: ARG002
        columns: NDArray[np.integer],  # noqa: ARG002
        ratings: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        return self.by_level[self.log.scale.level_index(ratings)]


class MultifactorialPropensity(PropensityModel):
    r"""The propensity of a rating level of an item, whoever gave it.

    .. math:: P(s = 1 | r, i) = P(r, i | s = 1) P(s = 1) / (P(i | r) P(r))

    (Huang et al., Going beyond popularity and positivity bias, SIGIR 2024, where it is written with y and o). With n
    ratings by choice, P(r, i | s = 1) = (count + alpha_2) / (n + alpha_2 P R). With n_r labels of level r,
    P(i | r) = (count + alpha_1) / (n_r + alpha_1 P): items are sampled evenly, so alpha_1 draws towards ratings that do
    not depend on the item. P(r) is that of ``NaiveBayes``, smoothed by one label of each level; estimates above 1
    become 1, as there. The authors' clipping and their rescaling of each item's weights are left to those who weigh.

    Parameters
    ----------
    label_smoothing
        alpha_1, above 0: pseudo-counts of each (item, level) pair among the labels.
    rating_smoothing
        alpha_2, above 0: the same among the ratings by choice, where it draws towards every level being as frequent.

    Raises
    ------
    ConfigError
        If a smoothing is not a number above 0.
    """

    needs_labels = True
    depends_on_rating = True

    by_item: NDArray[np.float64]
    """P(s = 1 | item, level), (P, R)."""

    def __init__(self, *, label_smoothing: float = 5.0, rating_smoothing: float = 1.0) -> None:
        self.label_smoothing = positive("label_smoothing", label_smoothing)
        self.rating_smoothing = positive("rating_smoothing", rating_smoothing)

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        log, labels = split.mnar_train, require_labels(split, type(self).__name__)
        chosen = _pair_counts(log) + self.rating_smoothing
        of_item = _pair_counts(labels) + self.label_smoothing
        all_cells = of_item / of_item.sum(axis=0) * level_shares(labels, 1.0)
        self.by_item = np.minimum(chosen / chosen.sum() * share_rated(log) / all_cells, 1.0)

    def _propensity_given(
        self,
        rows: NDArray[np.integer],  # noqa: ARG002
        columns: NDArray[np.integer],
        ratings: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        return np.asarray(self.by_item[columns, self.log.scale.level_index(ratings)])


def level_shares(log: RatingLog, smoothing: float) -> NDArray[np.float64]:
    """Return the share of each rating level, (R,), with so many pseudo-counts each."""
    counts = np.bincount(log.scale.level_index(log.ratings), minlength=log.scale.n_levels or 0) + smoothing
    return np.asarray(counts / counts.sum())


def _pair_counts(log: RatingLog) -> NDArray[np.float64]:
    """Return how often each item got each level, (P, R)."""
    n_levels = log.scale.n_levels or 0
    pairs = log.items.astype(np.int64) * n_levels + log.scale.level_index(log.ratings)
    return np.bincount(pairs, minlength=log.n_items * n_levels).reshape(log.n_items, n_levels).astype(np.float64)
