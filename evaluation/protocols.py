"""The four ways in which published numbers on randomly collected ratings are computed. Never compare across them.

==== =============================================== ==============================================================
P1   not-MIWAE (Ipsen, Mattei and Frellsen, ICLR     ratings as they are; all MCAR ratings are the test
     2021)
P2   CDR (Song et al., CIKM 2023), ICDE24 (Zhang et  positive is a rating of 3 or more; all MCAR ratings are the test;
     al., ICDE 2024), kernel balancing (Li et al.,   users without a positive test item count
     ICLR 2024)
P3   AutoDebias (Chen et al., SIGIR 2021)            positive is 4 or more; 5 % of the MCAR ratings may be trained on,
                                                     5 % are for validation, 90 % the test; users with a positive only
P4   MRDR (Guo et al., SIGIR 2021), DR-MSE (Dai et   positive is 4 or more; a tenth of the self-selected ratings is for
     al., KDD 2022)                                  validation, all MCAR ratings are the test; users with a positive
                                                     only, gains not normalised
==== =============================================== ==============================================================

Metrics, by the names in the tables. What ranks is the predicted mean, as it is; what is a probability is P(rating >=
threshold), from level probabilities or else from a ``PositiveMap``. Ties count by their expected value
(``ranking``); ``k`` items of a user's own test items are looked at. Intervals are percentiles over resampled users.

====================== ====== ======================================================================================
metric                 better
====================== ====== ======================================================================================
``mse mae rmse bias``         on the ratings themselves, see ``evaluate``, with its measures of calibration
``auc``                higher positive pairs above negative ones, over all pairs of the test (``ranking.auc``), by
                              probability where there is one
``ndcg@k``             higher DCG / ideal DCG, mean over all users, 1.0 for a user without positives
``ndcg_pos@k``         higher the same, over users with a positive only
``dcg@k``              higher sum over ranks of label / log2(1 + rank), over users with a positive only
``recall@k``           higher hits / positives, mean over all users, 0 for a user without positives (ICDE24, kernel)
``recall_capped@k``    higher hits / min(k, positives), mean over all users, 1.0 for a user without positives (CDR)
``recall_pos@k``       higher hits / positives, over users with a positive only
``hits@k``             higher number of positives among the first k, over users with a positive only: P4's "recall"
``precision@k``        higher hits / k, mean over all users
``f1@k``               higher harmonic mean of ``precision@k`` and ``recall@k``, each averaged first (kernel)
``mse_label``          lower  (probability - label)^2, the label 0 or 1
``nll``                lower  -log P(label), nats. AutoDebias prints it negative, with its raw score as log-odds
====================== ====== ======================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from evaluation.contributions import require_scored
from evaluation.evaluate import COLUMNS, cell_masks, check_levels, evaluate
from evaluation.label_intervals import LabelledPairs, label_intervals
from evaluation.labels import LABEL_SCALE, PositiveMap, binarise, positive_probability
from mnar_recsys.checks import check_same_length
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.split import split_ratings
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.rng import numpy_generator


@dataclass(frozen=True)
class Protocol:
    """One way to split the data and to score."""

    name: str
    threshold: float | None
    """Ratings of this or more are positive, in rating points; None: the ratings are scored as they are."""
    metrics: tuple[str, ...]
    """In the order of the table. Those that need a probability are left out where none is given; without a threshold
    ``evaluate`` adds its measures of calibration."""
    label_share: float = 0.0
    """Share of the MCAR ratings that may be trained on."""
    mcar_valid_share: float = 0.0
    """Share of the MCAR ratings for validation."""
    mnar_valid_share: float = 0.0
    """Share of the self-selected ratings for validation; 0 leaves that to the method."""
    headline: tuple[str, ...] = ()
    """The metrics that go into a table of many methods."""

    def on_labels(self) -> Self:
        """Return the protocol for logs that hold labels of 0 and 1 instead of ratings (``labels.as_labels``)."""
        return replace(self, threshold=LABEL_SCALE.high) if self.threshold is not None else self

    def describe(self) -> str:
        """Return what is scored, in half a sentence."""
        if self.threshold is None:
            return f"protocol {self.name}: ratings as they are"
        of = "labels of 1" if self.threshold == LABEL_SCALE.high else f"ratings of {self.threshold:g} or more"
        return f"protocol {self.name}: {of} are positive"


P1 = Protocol(
    "P1", None, ("mse", "rmse", "mae", "bias"), headline=("mae", "log_likelihood", "marginal_tv", "coverage_90")
)
P2 = Protocol(
    "P2",
    3.0,
    (
        "auc",
        "ndcg@5",
        "ndcg@10",
        "recall@5",
        "recall@10",
        "recall_capped@5",
        "recall_capped@10",
        "f1@5",
        "f1@10",
        "mse_label",
    ),
    headline=("auc", "ndcg@5", "recall@5"),
)
_P3_METRICS = ("auc", "ndcg_pos@5", "recall_pos@5", "nll")
P3 = Protocol("P3", 4.0, _P3_METRICS, label_share=0.05, mcar_valid_share=0.05, headline=_P3_METRICS)
_P4_METRICS = ("dcg@2", "dcg@4", "dcg@6", "hits@2", "hits@4", "hits@6")
P4 = Protocol("P4", 4.0, _P4_METRICS, mnar_valid_share=0.1, headline=_P4_METRICS)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in (P1, P2, P3, P4)})


@dataclass(frozen=True, eq=False)
class ProtocolSplit:
    """The data of a protocol; all logs share the split's vocabularies."""

    split: Split
    mcar_valid: RatingLog | None
    """MCAR ratings for validation alone; no cell of the test nor of the labels."""


def make_split(protocol: Protocol, chosen: RatingLog, surveyed: RatingLog, *, seed: int = 0) -> ProtocolSplit:
    """Give self-selected and randomly collected ratings the roles that a protocol gives them.

    Parameters
    ----------
    chosen
        Self-selected ratings.
    surveyed
        Randomly collected ratings, all there are.
    seed
        Of the permutations. The sizes are those of the papers (rounded down); the permutation is not, because theirs
        depends on the order of their files.

    Raises
    ------
    DataError
        If there are too few MCAR ratings for one in every part, or as ``Split``.
    """
    shares = (protocol.label_share, protocol.mcar_valid_share)
    sizes = [int(share * surveyed.n_ratings) for share in shares]
    if any(share > 0.0 and not size for share, size in zip(shares, sizes, strict=True)):
        raise DataError(
            f"{protocol.name} needs MCAR ratings for shares of {shares[0]:g} and {shares[1]:g}; found "
            f"{surveyed.n_ratings}, too few. Give more"
        )
    order = numpy_generator(seed, "protocol", protocol.name).permutation(surveyed.n_ratings)
    part = np.full(surveyed.n_ratings, 2)
    part[order[: sum(sizes)]] = 1
    part[order[: sizes[0]]] = 0
    labels, valid, test = (surveyed.select_ratings(part == number) for number in range(3))
    train, held_out = chosen, None
    if protocol.mnar_valid_share:
        train, held_out = split_ratings(chosen, protocol.mnar_valid_share, seed=seed)
    split = Split(mnar_train=train, mnar_valid=held_out, mcar_labels=labels if sizes[0] else None, mcar_test=test)
    aligned = valid.reindex(split.mnar_train.users, split.mnar_train.catalogue) if sizes[1] else None
    return ProtocolSplit(split, aligned)


def score(
    protocol: Protocol,
    split: Split,
    mean: ArrayLike,
    *,
    level_probabilities: ArrayLike | None = None,
    quantiles: tuple[ArrayLike, ArrayLike] | None = None,
    positive_map: PositiveMap | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions for every cell of ``split.mcar_test``, in the order in which the log stores them.

    Parameters
    ----------
    protocol
        Whose metrics to compute, on the test that the split holds.
    mean
        Predicted mean rating per cell, (n,), in rating points.
    level_probabilities
        Predicted probability of each rating level per cell, (n, R).
    quantiles
        Predicted 5 % and 95 % quantiles per cell, each (n,); no other protocol than P1 has a measure of them.
    positive_map
        Makes a probability of ``mean``, for a method without level probabilities.
    level, resamples, seed
        Of the user-cluster bootstrap.

    Returns
    -------
    DataFrame
        Columns ``cells metric value lower upper n``, for ``unseen`` cells (ranked among themselves) before ``all``;
        ``n`` counts the cells, or the users of a mean over users. P1 has the rows of ``evaluate``. Without level
        probabilities and map there are no rows for metrics that need a probability.

    Raises
    ------
    DataError
        If the split has no test, an array leaves a cell unscored or does not fit, or labels are all equal where a
        metric needs both.
    ConfigError
        If the threshold is off the scale, or the map was made for another.
    """
    test = split.mcar_test
    if test is None:
        raise DataError("scoring needs mcar_test; this split has none. Score with the split that holds the test")
    if protocol.threshold is None:
        return evaluate(
            test,
            mean,
            quantiles=quantiles,
            level_probabilities=level_probabilities,
            unseen=split.unseen,
            level=level,
            resamples=resamples,
            seed=seed,
        )
    scores = require_scored("predictions", mean)
    check_same_length(test=test.ratings, predictions=scores)
    is_positive = binarise(test, protocol.threshold)
    probability = _probability(protocol.threshold, test, scores, level_probabilities, positive_map)
    tables = []
    for cells, mask in cell_masks(test, split.unseen).items():
        pairs = LabelledPairs(
            test.rows[mask], is_positive[mask], scores[mask], None if probability is None else probability[mask]
        )
        found = label_intervals(pairs, protocol.metrics, level=level, resamples=resamples, seed=seed)
        rows = [(name, i.value, i.low, i.high, i.n) for name, i in found.items()]
        tables.append(pd.DataFrame(rows, columns=list(COLUMNS[1:])).assign(cells=cells))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _probability(
    threshold: float,
    test: RatingLog,
    mean: NDArray[np.float64],
    level_probabilities: ArrayLike | None,
    positive_map: PositiveMap | None,
) -> NDArray[np.float64] | None:
    if level_probabilities is not None:
        return positive_probability(test.scale, check_levels(test, level_probabilities), threshold)
    if test.scale == LABEL_SCALE:
        return test.scale.clip(mean)
    if positive_map is None:
        return None
    if positive_map.threshold != threshold:
        raise ConfigError(
            f"the map to probabilities must be for the threshold {threshold:g}; found {positive_map.threshold:g}"
        )
    return positive_map.probability(mean)
