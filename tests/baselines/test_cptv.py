"""CPT-v finds planted chances to rate, and with them the marginal that a mixture without selection misses."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pytest
from factories import log_of
from numpy.typing import NDArray

from baselines.cptv import CptV
from baselines.multinomial_mixture import LevelCells, em_path, random_start
from mnar_recsys.data import RatingScale, Split
from mnar_recsys.errors import ConfigError

MU = np.array([0.25, 0.1, 0.3, 0.6])
SCALE = RatingScale(1, 4, 1)


@dataclass(frozen=True, eq=False)
class Ignorable:
    """The same chance for every level: EM then never learns from what is unrated."""

    shape: tuple[int, int]

    def probabilities(self) -> NDArray[np.float64]:
        return np.full(self.shape, 0.3)

    def log_prior(self) -> float:
        return 0.0

    def update(self, rated: NDArray[np.float64], unrated: NDArray[np.float64]) -> Self:  # noqa: ARG002
        return self

    def coordinates(self) -> NDArray[np.float64]:
        return np.empty(0)

    def at(self, coordinates: NDArray[np.float64]) -> Self:  # noqa: ARG002
        return self


def planted() -> tuple[Split, NDArray[np.float64], NDArray[np.bool_]]:
    """600 users of 3 clusters, 40 items; the complete levels (N, P) and what is rated."""
    rng = np.random.default_rng(0)
    theta = rng.dirichlet(np.full(4, 0.5), size=(40, 3))  # (P, K, R)
    clusters = rng.integers(3, size=600)
    cumulative = np.cumsum(theta[:, clusters], axis=2).transpose(1, 0, 2)
    levels = 1.0 + (rng.random((600, 40, 1)) > cumulative).sum(axis=2)
    rated = rng.random(levels.shape) < MU[levels.astype(int) - 1]
    return Split(mnar_train=log_of(np.where(rated, levels, np.nan), SCALE)), levels, rated


def test_planted_chances_and_marginal_are_recovered() -> None:
    split, levels, rated = planted()
    log = split.mnar_train
    model = CptV(n_clusters=3, smoothing=0.1).fit(split, seed=0)
    found = model.fitted.mixture.selection.probabilities()[0]
    np.testing.assert_allclose(found, MU, rtol=0.15)
    # The prediction is what a user would answer at random, so the truth is the marginal of all cells.
    truth = np.bincount(levels.ravel().astype(int), minlength=5)[1:] / levels.size
    rows, columns = (index.ravel() for index in np.indices(levels.shape))
    users, items = log.users.take(rows), log.catalogue.take(columns)
    cells = LevelCells.of_log(log, "the test")
    start = random_start(cells, Ignorable((40, 4)), 3, np.random.default_rng(0))
    *_, ignorable = em_path(cells, start, 0.1)
    naive = np.einsum("nk,nrk->nr", ignorable.responsibilities[rows], ignorable.mixture.theta[columns])
    assert np.abs(model.level_probabilities(users, items).mean(axis=0) - truth).sum() < 0.05
    assert np.abs(naive.mean(axis=0) - truth).sum() > 0.2
    unrated = ~rated.ravel()
    error, naive_error = (
        np.square(predicted - levels.ravel())[unrated].mean()
        for predicted in (model.predict(users, items), naive @ np.arange(1.0, 5.0))
    )
    assert error < 0.8 * naive_error


def test_a_seed_decides_the_fit() -> None:
    split, _, _ = planted()
    first, again, other = (CptV(n_clusters=3).fit(split, seed=seed).fitted.objective for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_selection_smoothing_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="selection_smoothing must be a number above 0; found -1"):
        CptV(selection_smoothing=-1.0)
