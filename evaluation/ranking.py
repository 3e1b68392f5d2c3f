"""Ranking of each user's own test items, and the area under the ROC curve over all of them.

Tied scores count by their expected value under a random order of the tied items, so that no result hangs on how a
file was sorted: a clipped or constant prediction ties often. Every metric is higher-is-better.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from evaluation.contributions import require_scored
from evaluation.intervals import Interval, bootstrap
from mnar_recsys.checks import check_same_length
from mnar_recsys.errors import ConfigError, DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Each user's test items in falling order of score; build it with ``of``.

    A block is a run of one user's items with equal scores. Memory and time are O(n log n) in the number of pairs.
    """

    users: NDArray[np.generic]
    """Distinct users, rising, (U,); per-user results follow this order."""
    sizes: NDArray[np.int64]
    """Test items of each user, (U,)."""
    n_positives: NDArray[np.int64]
    """Positive test items of each user, (U,)."""
    block_user: NDArray[np.int64]
    """Position in ``users`` of each block's user, (B,)."""
    block_start: NDArray[np.int64]
    """Items of the user ranked above the block, (B,)."""
    block_size: NDArray[np.int64]
    """Items in the block, (B,)."""
    block_positives: NDArray[np.int64]
    """Positive items in the block, (B,)."""

    @classmethod
    def of(cls, users: NDArray[np.generic], labels: NDArray[np.bool_], scores: ArrayLike) -> Self:
        """Rank pairs by score within users.

        Parameters
        ----------
        users
            The user of each pair, (n,): any ids.
        labels
            Whether the pair is positive, (n,).
        scores
            What to rank by, (n,), higher first; only the order within a user matters.

        Raises
        ------
        DataError
            If there is no pair, a pair has no score, the labels are not boolean, or the lengths differ.
        """
        is_positive, score = _check_pairs(labels, scores)
        check_same_length(users=np.asarray(users), labels=is_positive)
        distinct, code = np.unique(users, return_inverse=True)
        order = np.lexsort((-score, code))
        code, score, is_positive = code[order], score[order], is_positive[order]
        sizes = np.bincount(code).astype(np.int64)
        opens = np.ones(len(code), dtype=np.bool_)
        opens[1:] = (np.diff(code) != 0) | (np.diff(score) != 0)
        starts = np.flatnonzero(opens)
        first_of_user = np.cumsum(sizes) - sizes
        return cls(
            users=distinct,
            sizes=sizes,
            n_positives=np.bincount(code[is_positive], minlength=len(sizes)).astype(np.int64),
            block_user=code[starts].astype(np.int64),
            block_start=starts - first_of_user[code[starts]],
            block_size=np.diff(np.append(starts, len(code))),
            block_positives=np.add.reduceat(is_positive.astype(np.int64), starts),
        )

    @property
    def has_positive(self) -> NDArray[np.bool_]:
        """Whether a user has any positive test item, (U,)."""
        return self.n_positives > 0

    def hits(self, k: int) -> Floats:
        """Return the expected number of positives among each user's first k items, (U,)."""
        return self._expected_gain(np.ones(_check_cutoff(k)))

    def dcg(self, k: int) -> Floats:
        """Return each user's expected discounted gain, sum over ranks j = 1..k of label / log2(1 + j), (U,)."""
        return self._expected_gain(_discounts(k))

    def ideal_dcg(self, k: int) -> Floats:
        """Return the discounted gain with all positives ranked first, (U,); 0 for a user without positives."""
        return _cumulative(_discounts(k))[np.minimum(self.n_positives, k)]

    def _expected_gain(self, discounts: Floats) -> Floats:
        """Return sum of label times discount of the rank, ranks past the last discount counting 0, (U,)."""
        total, last = _cumulative(discounts), len(discounts)
        stop = self.block_start + self.block_size
        # In a block each order is equally likely, so each of its items has the block's mean discount.
        block = total[np.minimum(stop, last)] - total[np.minimum(self.block_start, last)]
        gain = self.block_positives * block / self.block_size
        return np.bincount(self.block_user, weights=gain, minlength=len(self.sizes)).astype(np.float64)


def ndcg(ranking: Ranking, k: int) -> Floats:
    """Return DCG@k / ideal DCG@k of every user, (U,), 1.0 where the user has no positive item."""
    ideal = ranking.ideal_dcg(k)
    return np.divide(ranking.dcg(k), ideal, out=np.ones_like(ideal), where=ideal > 0.0)


def recall(ranking: Ranking, k: int) -> Floats:
    """Return hits@k / max(1, number of positives) of every user, (U,): 0 where the user has no positive item."""
    return np.asarray(ranking.hits(k) / np.maximum(ranking.n_positives, 1))


def recall_capped(ranking: Ranking, k: int) -> Floats:
    """Return hits@k / min(k, number of positives) of every user, (U,), 1.0 where the user has no positive item."""
    best = np.minimum(ranking.n_positives, k).astype(np.float64)
    return np.divide(ranking.hits(k), best, out=np.ones_like(best), where=best > 0.0)


def precision(ranking: Ranking, k: int) -> Floats:
    """Return hits@k / k of every user, (U,), also where the user has fewer than k items."""
    return np.asarray(ranking.hits(k) / k)


def _of_positive_users(metric: Callable[[Ranking, int], Floats]) -> Callable[[Ranking, int], Floats]:
    def chosen(ranking: Ranking, k: int) -> Floats:
        return np.asarray(metric(ranking, k)[ranking.has_positive])

    return chosen


ALL_USERS: Mapping[str, Callable[[Ranking, int], Floats]] = MappingProxyType(
    {"ndcg": ndcg, "recall": recall, "recall_capped": recall_capped, "precision": precision}
)
"""Metric to its values per user, (U,)."""
POSITIVE_USERS: Mapping[str, Callable[[Ranking, int], Floats]] = MappingProxyType(
    {
        "ndcg_pos": _of_positive_users(ndcg),
        "recall_pos": _of_positive_users(recall),
        "dcg": _of_positive_users(Ranking.dcg),
        "hits": _of_positive_users(Ranking.hits),
    }
)
"""Metric to its values per user with at least one positive item, in the order of the users."""


def auc(labels: NDArray[np.bool_], scores: ArrayLike) -> float:
    """Return the probability that a positive pair scores above a negative one, ties counting half.

    Over all pairs of the test, whoever the user: ``sklearn.metrics.roc_auc_score``.

    Raises
    ------
    DataError
        If all labels are equal, or as ``Ranking.of``.
    """
    is_positive, score = _check_pairs(labels, scores)
    return float(_placements(is_positive, score)[is_positive].mean())


def auc_interval(
    labels: NDArray[np.bool_],
    scores: ArrayLike,
    users: NDArray[np.generic],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the AUC with a percentile interval from resampling whole users.

    A resampled AUC is taken to first order: the resampled positives against all negatives, plus all positives against
    the resampled negatives, minus the AUC. What is left out is of the order of 1 / users. The variance is that of
    clustered ROC curves (Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53, 1997), at the
    cost of one sort.

    Raises
    ------
    DataError
        As ``auc``, or if the lengths differ.
    ConfigError
        As ``bootstrap``.
    """
    is_positive, score = _check_pairs(labels, scores)
    placements = _placements(is_positive, score)
    value = float(placements[is_positive].mean())

    def first_order(means: Floats) -> Floats:
        # A resample without either class says nothing on that term.
        parts = [
            np.divide(
                means[..., m], means[..., m + 1], out=np.full_like(means[..., m], value), where=means[..., m + 1] > 0
            )
            for m in (0, 2)
        ]
        return np.asarray(parts[0] + parts[1] - value)[..., None]

    columns = [is_positive * placements, is_positive, ~is_positive * placements, ~is_positive]
    table = np.stack([column.astype(np.float64) for column in columns], axis=1)
    return bootstrap(table, users, statistic=first_order, level=level, resamples=resamples, seed=seed)[0]


def _placements(is_positive: NDArray[np.bool_], score: Floats) -> Floats:
    """Return the share of the other class that a pair is on the right side of, ties counting half, (n,)."""
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if not n_positive or not n_negative:
        found = "positive" if n_positive else "negative"
        raise DataError(f"the AUC needs pairs of both labels; found {len(is_positive)} pairs, all {found}")
    ranks = rankdata(score)
    placements = np.empty(len(score))
    placements[is_positive] = (ranks[is_positive] - rankdata(score[is_positive])) / n_negative
    placements[~is_positive] = 1.0 - (ranks[~is_positive] - rankdata(score[~is_positive])) / n_positive
    return placements


def _check_pairs(labels: NDArray[np.bool_], scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    is_positive, score = np.asarray(labels), require_scored("scores", scores)
    if is_positive.dtype != np.bool_:
        raise DataError(f"labels must be boolean; found {is_positive.dtype}. Compare the ratings with a threshold")
    check_same_length(labels=is_positive, scores=score)
    if not len(score):
        raise DataError("a ranking needs at least one pair; found none")
    return is_positive, score


def _check_cutoff(k: int) -> int:
    if k < 1:
        raise ConfigError(f"the cutoff of a ranking must be at least 1; found {k}")
    return k


def _discounts(k: int) -> Floats:
    return np.asarray(1.0 / np.log2(np.arange(2.0, _check_cutoff(k) + 2.0)))


def _cumulative(discounts: Floats) -> Floats:
    """Return the sum of the first j discounts for j = 0, 1, ..., (k + 1,)."""
    return np.concatenate([[0.0], np.cumsum(discounts)])
