"""The constant and the offsets: by hand, and against a direct least-squares solve."""

import numpy as np
import pytest

from baselines.bias import SHRINKAGE_GRID, BiasBaseline, solve_offsets
from baselines.constant import ConstantTrain
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError


def fitted_to(log: RatingLog) -> Split:
    return Split(mnar_train=log)


@pytest.fixture
def log() -> RatingLog:
    rng = np.random.default_rng(0)
    cells = rng.choice(12 * 9, size=60, replace=False)
    user, item = cells // 9, cells % 9
    quality = np.linspace(-1, 1, 9)[item] + np.linspace(-1, 1, 12)[user]
    ratings = np.clip(np.round(3 + quality + rng.normal(size=60)), 1, 5)
    return RatingLog.from_arrays(user + 100, item + 500, ratings, scale="1,5")


def test_constant_is_the_mean_for_any_pair(log: RatingLog) -> None:
    model = ConstantTrain().fit(fitted_to(log), seed=0)
    np.testing.assert_allclose(model.predict(np.array([100, -7]), np.array([500, 3])), log.ratings.mean())


@pytest.mark.parametrize("shrinkage", [(1.0, 1.0), (0.3, 12.0), (25.0, 2.0)])
def test_offsets_agree_with_a_direct_ridge_solve(log: RatingLog, shrinkage: tuple[float, float]) -> None:
    n, users, items = log.n_ratings, log.n_users, log.n_items
    design = np.zeros((n, users + items))
    design[np.arange(n), log.rows] = 1.0
    design[np.arange(n), users + log.items] = 1.0
    penalty = np.diag(np.repeat(shrinkage, (users, items)))
    target = log.ratings.astype(float) - log.ratings.mean(dtype=float)
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    found = solve_offsets(log.rows, log.items, log.ratings, (users, items), shrinkage)
    np.testing.assert_allclose(np.concatenate([found.user, found.item]), expected, atol=1e-5)


def test_prediction_is_mean_plus_offsets_by_original_ids(log: RatingLog) -> None:
    model = BiasBaseline(user_shrinkage=2.0, item_shrinkage=3.0).fit(fitted_to(log), seed=0)
    found = model.predict(np.array([103, 103, 999, 999]), np.array([502, 999, 502, 999]))
    user, item = (
        model.offsets.user[log.users.index([103])[0]],
        model.offsets.item[log.catalogue.index([502])[0]],
    )
    mean = model.offsets.mean
    np.testing.assert_allclose(found, np.clip([mean + user + item, mean + user, mean + item, mean], 1, 5))


def test_predictions_stay_on_the_scale(log: RatingLog) -> None:
    model = BiasBaseline(user_shrinkage=1e-3, item_shrinkage=1e-3).fit(fitted_to(log), seed=0)
    users, items = np.meshgrid(log.users.ids, log.catalogue.ids)
    found = model.predict(users.ravel(), items.ravel())
    assert found.min() >= 1.0
    assert found.max() <= 5.0


def test_shrinkage_is_chosen_on_training_ratings_and_beats_the_constant() -> None:
    simulation = simulate_ratings("popularity", n_users=1500, seed=0)
    test = simulation.test
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    model = BiasBaseline().fit(fitted_to(simulation.train), seed=0)
    assert model.chosen is not None
    assert set(model.chosen) <= set(SHRINKAGE_GRID)
    error = np.square(model.predict(users, items) - test.ratings).mean()
    # Offsets hold a quarter of the latent variance, of which 20 ratings a user reveal most.
    assert error < 0.9 * test.ratings.var()
    extreme = BiasBaseline(user_shrinkage=1000.0, item_shrinkage=1000.0).fit(fitted_to(simulation.train), seed=0)
    assert error < np.square(extreme.predict(users, items) - test.ratings).mean()


def test_a_given_shrinkage_is_kept_beside_a_chosen_one(log: RatingLog) -> None:
    model = BiasBaseline(user_shrinkage=7.0).fit(fitted_to(log), seed=0)
    assert model.chosen is not None
    assert model.chosen[0] == 7.0
    assert model.chosen[1] in SHRINKAGE_GRID


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_shrinkage_must_be_above_zero(value: float) -> None:
    with pytest.raises(ConfigError, match="user_shrinkage must be a number above 0"):
        BiasBaseline(user_shrinkage=value)
