"""What people would say, on average, of what they did not rate."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.prediction.predictor import Predictor
from mnar_recsys.rng import numpy_generator

_SAMPLED_USERS = 200
_SAMPLED_CELLS = 5000
_POSTERIOR_CELLS = 20_000_000


def mean_of_unrated(predictor: Predictor, seed: int = 0) -> tuple[float, float]:
    """Return the predicted mean rating of unrated cells and its standard error over users, from a sample."""
    rows, items = _sample(predictor, seed)
    if not len(rows):
        return float("nan"), float("nan")
    predicted = predictor.predict(rows, items).mean.astype(np.float64)
    _, group = np.unique(rows, return_inverse=True)
    by_user = np.bincount(group, predicted) / np.bincount(group)
    error = by_user.std(ddof=1) / np.sqrt(len(by_user)) if len(by_user) > 1 else float("nan")
    return float(predicted.mean()), float(error)


def shares_of_unrated(predictor: Predictor, seed: int = 0) -> NDArray[np.float64] | None:
    """Return the predicted shares of the rating levels among unrated cells, (R,), from the same sample.

    None on a scale without levels, or where every cell of the sample is rated.
    """
    rows, items = _sample(predictor, seed)
    if predictor.log.scale.levels is None or not len(rows):
        return None
    levels = predictor.predict(rows, items, levels=True).levels
    return None if levels is None else levels.mean(0, dtype=np.float64)


def _sample(predictor: Predictor, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return users and items of unrated cells, of some users."""
    log = predictor.log
    rng = numpy_generator(seed, "sample of unrated cells")
    size = int(np.clip(_POSTERIOR_CELLS // log.n_items, 20, _SAMPLED_USERS))
    users = np.sort(rng.choice(log.n_users, min(size, log.n_users), replace=False))
    each = min(max(_SAMPLED_CELLS // len(users), 1), log.n_items)
    rows = np.repeat(users, each)
    items = rng.integers(log.n_items, size=len(rows))
    is_unrated = ~np.isin(rows * log.n_items + items, log.cells)
    return rows[is_unrated], items[is_unrated]
