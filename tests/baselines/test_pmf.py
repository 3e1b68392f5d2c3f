"""PMF: its shrinkage is the one that predicts held-out ratings, its solution a maximum of the posterior."""

from dataclasses import replace

import numpy as np
import pytest

from baselines.alternating_ridge import Ratings, Shrinkage
from baselines.pmf import SHRINKAGE_GRID, Pmf
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError


@pytest.fixture(scope="module")
def simulated() -> tuple[Split, RatingLog]:
    simulation = simulate_ratings("popularity", n_users=400, n_items=80, ratings_per_user=20, seed=0)
    return Split(mnar_train=simulation.train), simulation.test


def error(model: Pmf, test: RatingLog) -> float:
    predicted = model.predict(test.users.take(test.rows), test.catalogue.take(test.items))
    return float(np.square(predicted - test.ratings).mean())


def test_the_chosen_shrinkage_beats_weak_and_strong_ones_on_a_random_survey(
    simulated: tuple[Split, RatingLog],
) -> None:
    split, test = simulated
    model = Pmf().fit(split, seed=0)
    spread = split.mnar_train.values.std()
    assert model.chosen is not None
    # The spread is that of nine tenths of the ratings.
    assert min(abs(model.chosen / spread / ratio - 1) for ratio in SHRINKAGE_GRID) < 0.02
    best = error(model, test)
    assert best < 0.9 * test.ratings.var()
    for shrinkage in (0.3 * spread, 30 * spread):
        assert best < 0.95 * error(Pmf(shrinkage=float(shrinkage)).fit(split, seed=0), test)


def test_no_step_raises_the_posterior(simulated: tuple[Split, RatingLog]) -> None:
    split, _ = simulated
    model = Pmf(size=3, shrinkage=5.0).fit(split, seed=0)
    ratings, shrinkage = Ratings.of_log(split.mnar_train), Shrinkage(5.0)
    lowest = model.factors.objective(ratings, shrinkage)
    rng = np.random.default_rng(0)
    for name in ("user", "item"):
        table = getattr(model.factors, name)
        step = rng.normal(size=table.shape)
        step *= 0.05 * np.linalg.norm(table) / np.linalg.norm(step)
        assert replace(model.factors, **{name: table + step}).objective(ratings, shrinkage) > lowest


def test_a_given_shrinkage_is_used(simulated: tuple[Split, RatingLog]) -> None:
    split, test = simulated
    model = Pmf(shrinkage=1e6).fit(split, seed=0)
    assert model.chosen == 1e6
    predicted = model.predict(test.users.take(test.rows), test.catalogue.take(test.items))
    np.testing.assert_allclose(predicted, split.mnar_train.values.mean(), atol=1e-6)


def test_equal_ratings_are_predicted_everywhere() -> None:
    rows, columns = np.indices((8, 6)).reshape(2, -1)
    log = RatingLog.from_arrays(rows, columns, np.full(48, 4.0), scale="1,5")
    found = Pmf().fit(Split(mnar_train=log), seed=0).predict(rows, columns)
    np.testing.assert_allclose(found, 4.0)


@pytest.mark.parametrize("setting", ["size", "shrinkage"])
def test_settings_must_be_above_zero(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be a number above 0; found -1"):
        Pmf(**{setting: -1})
