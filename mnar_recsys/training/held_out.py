"""Which users a fit is made on, and which it is judged by."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.config import TrainingConfig
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError
from mnar_recsys.rng import numpy_generator

# Users trained on whose bound tells whether training has converged: noise is the same at every look, so few will do.
_WATCHED = 200
# Cells (S x users x P) of a look at the held-out users, which is never subsampled: a second or two.
_LOOK_CELLS = 300_000_000


def split_users(log: RatingLog, config: TrainingConfig, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the users to train on and those held out, of all with ratings; the same for the same seed.

    None are held out unless ``config.stop`` is ``held-out``.

    Raises
    ------
    ConfigError
        If users are to be held out of fewer than two.
    """
    users = np.flatnonzero(np.diff(log.indptr) > 0)
    if config.stop != "held-out":
        return users, users[:0]
    if len(users) < 2:
        raise ConfigError(f"stop='held-out' needs two users with ratings; found {len(users)}. Set stop='converged'")
    shuffled = numpy_generator(seed, "held out users").permutation(users)
    affordable = _LOOK_CELLS // (config.validation_samples * log.n_items)
    most = max(min(config.holdout_max, affordable), 1)
    size = int(np.clip(round(config.holdout_share * len(users)), 1, most))
    return np.sort(shuffled[size:]), np.sort(shuffled[:size])


def watched_users(
    train_users: NDArray[np.int64], held_out: NDArray[np.int64], config: TrainingConfig, *, seed: int
) -> NDArray[np.int64]:
    """Return whose bound decides when to stop: those held out, or some trained on, or with ``stop="never"`` nobody."""
    if config.stop != "converged":
        return held_out
    shuffled = numpy_generator(seed, "watched users").permutation(train_users)
    return np.sort(shuffled[:_WATCHED])
