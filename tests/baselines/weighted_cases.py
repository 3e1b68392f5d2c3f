"""A tiny matrix with known ratings and propensities, for methods that weigh ratings."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from factories import log_of, random_matrix
from numpy.typing import NDArray
from torch import Tensor

from baselines.base import Baseline
from mnar_recsys.data import RatingScale, Split
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.propensity.given import GivenPropensity

STARS = RatingScale(1, 5, 1)


@dataclass(frozen=True)
class Cells:
    """All cells of a small matrix: true errors, wrong imputed errors, propensities that rise with the error."""

    errors: NDArray[np.float64]  # (C,)
    wrong: NDArray[np.float64]  # (C,)
    propensity: NDArray[np.float64]  # (C,)

    def masks(self, count: int) -> NDArray[np.bool_]:
        return np.random.default_rng(1).random((count, len(self.errors))) < self.propensity


def small_cells(n_cells: int = 30) -> Cells:
    rng = np.random.default_rng(0)
    errors = rng.gamma(1.0, size=n_cells)
    return Cells(errors, rng.gamma(1.0, size=n_cells), np.clip(0.15 + 0.25 * errors, 0.0, 0.9))


def single(values: NDArray[np.floating]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def assert_mean(estimates: list[float], truth: float) -> None:
    """Within three standard errors, which are small enough for a mistake to show."""
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert error < 0.02 * truth
    assert abs(np.mean(estimates) - truth) < 3.0 * error


def star_split(n_users: int = 12, n_items: int = 9, *, seed: int = 0, labels: bool = False) -> Split:
    train = log_of(random_matrix(n_users, n_items, seed=seed, levels=5, density=0.5), STARS)
    other = log_of(random_matrix(n_users, n_items, seed=seed + 1, levels=5, density=0.3), STARS)
    return Split(mnar_train=train, mcar_labels=other if labels else None)


def rating_propensity() -> GivenPropensity:
    """P(rated) = rating / 10."""
    return GivenPropensity(lambda _rows, _columns, ratings: np.asarray(ratings) / 10.0, depends_on_rating=True)


@cache
def selected(preset: str = "r3-like", *, seed: int = 0) -> tuple[Simulation, GivenPropensity]:
    """A simulation of 600 users and 150 items with its true propensities."""
    simulation = simulate_ratings(preset, n_users=600, n_items=150, ratings_per_user=12, seed=seed)
    propensity = simulation.truth.block(0, 600)[1]
    return simulation, GivenPropensity(lambda rows, columns, _: propensity[rows, columns], depends_on_rating=False)


def error_on_test(model: Baseline, simulation: Simulation, *, labels: bool = False) -> float:
    """Fit, and return the mean squared error on the random test."""
    split = Split(mnar_train=simulation.train, mcar_labels=simulation.labels if labels else None)
    test = simulation.test
    predicted = model.fit(split, seed=0).predict(test.users.take(test.rows), test.catalogue.take(test.items))
    return float(np.square(predicted - test.ratings).mean())
