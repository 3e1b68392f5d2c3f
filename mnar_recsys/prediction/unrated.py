"""What people would say, on average, of what they did not rate."""

import numpy as np

from mnar_recsys.prediction.predictor import Predictor
from mnar_recsys.rng import numpy_generator

_SAMPLED_USERS = 200
_SAMPLED_CELLS = 5000
_POSTERIOR_CELLS = 20_000_000


def mean_of_unrated(predictor: Predictor, seed: int = 0) -> tuple[float, float]:
    """Return the predicted mean rating of unrated cells and its standard error over users, from a sample."""
    log = predictor.log
    rng = numpy_generator(seed, "sample of unrated cells")
    size = int(np.clip(_POSTERIOR_CELLS // log.n_items, 20, _SAMPLED_USERS))
    users = np.sort(rng.choice(log.n_users, min(size, log.n_users), replace=False))
    each = min(max(_SAMPLED_CELLS // len(users), 1), log.n_items)
    rows = np.repeat(users, each)
    items = rng.integers(log.n_items, size=len(rows))
    is_unrated = ~np.isin(rows * log.n_items + items, log.cells)
    if not is_unrated.any():
        return float("nan"), float("nan")
    rows, items = rows[is_unrated], items[is_unrated]
    predicted = predictor.predict(rows, items).mean.astype(np.float64)
    _, group = np.unique(rows, return_inverse=True)
    by_user = np.bincount(group, predicted) / np.bincount(group)
    error = by_user.std(ddof=1) / np.sqrt(len(by_user)) if len(by_user) > 1 else float("nan")
    return float(predicted.mean()), float(error)
