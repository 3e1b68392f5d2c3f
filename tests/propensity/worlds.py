"""Logs of the propensity tests: masks with planted structure, and simulations with their true propensities."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import FeatureTable, RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.propensity.base import PropensityModel


def log_of_mask(mask: NDArray[np.bool_], **features: FeatureTable) -> RatingLog:
    """Return a log with the given mask; ratings alternate between 1 and 2; ids are row and column numbers."""
    rows, columns = np.nonzero(mask)
    log = RatingLog.from_arrays(
        rows,
        columns,
        1.0 + np.arange(len(rows)) % 2,
        scale="1,5",
        user_ids=np.arange(mask.shape[0]),
        catalogue=np.arange(mask.shape[1]),
    )
    return log.with_features(**features)


def random_mask(probability: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(probability.shape) < probability


def block_probability(
    n_users: int, n_items: int, *, inside: float = 0.35, outside: float = 0.05
) -> NDArray[np.float64]:
    """Two kinds of people who each rate one half of the items: margins say nothing of who rates what."""
    is_second = np.arange(n_users) % 2 == 1, np.arange(n_items) % 2 == 1
    return np.where(is_second[0][:, None] == is_second[1], inside, outside)


def dense(model: PropensityModel, log: RatingLog) -> NDArray[np.float64]:
    rows, columns = np.indices((log.n_users, log.n_items)).reshape(2, -1)
    return model.propensity(rows, columns).reshape(log.n_users, log.n_items)


def cross_entropy(truth: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    """Mean -log-likelihood of a mask with probabilities ``truth``, in nats; least at the truth."""
    return float(-(truth * np.log(found) + (1.0 - truth) * np.log1p(-found)).mean())


@dataclass(frozen=True, eq=False)
class World:
    split: Split
    ratings: NDArray[np.int8]  # (N, P)
    truth: NDArray[np.float64]  # (N, P), P(s = 1 | rating, user, item)


@cache
def simulated(preset: str, n_users: int = 1000, n_items: int = 300, per_user: float = 12.0, seed: int = 0) -> World:
    simulation = simulate_ratings(preset, n_users=n_users, n_items=n_items, ratings_per_user=per_user, seed=seed)
    ratings, truth = simulation.truth.block(0, n_users)
    return World(Split(simulation.train, mcar_labels=simulation.labels), ratings, truth.astype(np.float64))
