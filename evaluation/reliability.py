"""Predicted probabilities against what happened, in bins of equally many predictions."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from evaluation.contributions import check_probabilities, require_scored
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import ConfigError, DataError


def reliability(predicted: ArrayLike, happened: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """Return mean prediction and observed share in bins of equally many predictions, rising.

    Equal predictions stay in one bin, so there may be fewer bins. A calibrated model has ``predicted`` equal to
    ``observed`` up to chance.

    Parameters
    ----------
    predicted
        Probability of the event, (n,).
    happened
        1 where it happened, else 0, (n,).

    Returns
    -------
    DataFrame
        Columns ``predicted observed n``.

    Raises
    ------
    DataError
        If the lengths differ, there is nothing, or a value is not from 0 to 1.
    ConfigError
        If there is no bin.
    """
    if bins < 1:
        raise ConfigError(f"bins must be at least 1; found {bins}")
    p, y = require_scored("predicted probabilities", predicted), as_finite("outcomes", happened)
    check_same_length(predicted=p, happened=y)
    if not len(p) or min(p.min(), y.min()) < 0.0 or max(p.max(), y.max()) > 1.0:
        raise DataError(f"predictions and outcomes must be from 0 to 1, one or more; found {len(p)} of them")
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, bins + 1)))
    place = np.searchsorted(edges[1:-1], p, side="right")
    count = np.bincount(place)
    some = count > 0
    means = [np.bincount(place, weights=values)[some] / count[some] for values in (p, y)]
    return pd.DataFrame({"predicted": means[0], "observed": means[1], "n": count[some]})


def level_reliability(
    levels: NDArray[np.float64], level_index: NDArray[np.integer], probabilities: ArrayLike, *, bins: int = 10
) -> pd.DataFrame:
    """Return ``reliability`` of the probability of each rating level: columns ``level predicted observed n``.

    Parameters
    ----------
    levels
        Rating levels, (R,), in rating points.
    level_index
        Index of the true level, 0..R-1, (n,).
    probabilities
        Predicted probability of each level, (n, R).
    """
    table = check_probabilities(probabilities)
    check_same_length(levels=np.asarray(levels), probabilities=table[0])
    parts = [
        reliability(table[:, place], level_index == place, bins=bins).assign(level=level)
        for place, level in enumerate(levels)
    ]
    return pd.concat(parts, ignore_index=True)[["level", "predicted", "observed", "n"]]
