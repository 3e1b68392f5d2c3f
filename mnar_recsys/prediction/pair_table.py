"""Predictions as a table: a row a pair, under the original ids."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog
from mnar_recsys.prediction.predictions import Predictions

QUANTILES = (0.05, 0.5, 0.95)


def pair_table(
    user_ids: NDArray[np.generic],
    item_ids: NDArray[np.generic],
    predicted: Predictions,
    log: RatingLog,
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    *,
    levels: bool = False,
    propensity: bool = False,
) -> pa.Table:
    """Return pairs and what is predicted of them, quantiles at ``QUANTILES`` first, under their original ids.

    Parameters
    ----------
    user_ids, item_ids : ndarray
        The pairs, (n,) each.
    predicted : Predictions
        Of them.
    log : RatingLog
        Whose scale it is.
    bounds : pair of ndarray, optional
        Ends of conformal intervals, each (n,).
    levels, propensity : bool
        Whether to add these columns.
    """
    columns = {
        "user": user_ids,
        "item": item_ids,
        "mean": predicted.mean,
        "sd": predicted.sd,
        "mean_se": predicted.mean_se,
        "q05": predicted.quantiles[0],
        "q50": predicted.quantiles[1],
        "q95": predicted.quantiles[2],
        "cold": predicted.cold,
    }
    if bounds is not None:
        columns |= {"lower": bounds[0].astype(np.float32), "upper": bounds[1].astype(np.float32)}
    if levels and predicted.levels is not None and log.scale.levels is not None:
        columns |= {f"p{level:g}": predicted.levels[:, place] for place, level in enumerate(log.scale.levels)}
    if propensity:
        columns["propensity"] = predicted.propensity
    return pa.table(columns)
