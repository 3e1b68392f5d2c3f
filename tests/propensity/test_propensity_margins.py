"""Uniform, popularity and their additive log-odds: by hand, against another library, and against the truth."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from worlds import cross_entropy, dense, log_of_mask, random_mask, simulated

from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.additive import fit_additive
from mnar_recsys.propensity.popularity import ItemPopularity, UserItemPopularity, UserPopularity
from mnar_recsys.propensity.uniform import Uniform

MASK = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [1, 0, 1, 0, 0]], dtype=bool)  # 6 of 15 rated


@pytest.fixture
def split() -> Split:
    return Split(log_of_mask(MASK))


def test_uniform_is_the_share_rated(split: Split) -> None:
    np.testing.assert_allclose(dense(Uniform().fit(split, seed=0), split.mnar_train), 6 / 15)


def test_item_popularity_by_hand(split: Split) -> None:
    # (3, 1, 1, 0, 1) of 3 users, and two more users who rate 6 in 15.
    found = dense(ItemPopularity(smoothing=2.0).fit(split, seed=0), split.mnar_train)
    np.testing.assert_allclose(found, np.tile([3.8 / 5, 1.8 / 5, 1.8 / 5, 0.8 / 5, 1.8 / 5], (3, 1)))
    assert found.mean() == pytest.approx(6 / 15)


def test_user_popularity_by_hand(split: Split) -> None:
    found = dense(UserPopularity(smoothing=1.0).fit(split, seed=0), split.mnar_train)
    np.testing.assert_allclose(found, np.tile([[3.4 / 6], [1.4 / 6], [2.4 / 6]], (1, 5)))
    assert found.mean() == pytest.approx(6 / 15)


@pytest.mark.parametrize("prior_sd", [0.5, 2.0])
@pytest.mark.parametrize("shape", [(40, 15), (15, 40)])
def test_additive_log_odds_agree_with_a_regression_on_indicator_columns(
    shape: tuple[int, int], prior_sd: float
) -> None:
    rng = np.random.default_rng(0)
    logits = -1.0 + rng.normal(size=(shape[0], 1)) + rng.normal(size=shape[1])
    mask = random_mask(expit(logits), seed=1)
    rows, columns = np.indices(shape).reshape(2, -1)
    indicators = sparse.hstack([sparse.eye_array(shape[0]).tocsr()[rows], sparse.eye_array(shape[1]).tocsr()[columns]])
    regression = LogisticRegression(C=prior_sd**2, tol=1e-10, solver="newton-cg", max_iter=1000)
    regression.fit(indicators, mask.ravel())
    found = fit_additive(log_of_mask(mask), prior_sd=prior_sd)
    assert found.intercept == pytest.approx(regression.intercept_[0], abs=1e-4)
    np.testing.assert_allclose(np.concatenate([found.user, found.item]), regression.coef_[0], atol=1e-4)


def test_without_a_prior_expected_counts_are_the_counts() -> None:
    mask = random_mask(np.full((60, 45), 0.3), seed=3)
    assert 0 < mask.sum(axis=0).min() <= mask.sum(axis=0).max() < 60
    model = UserItemPopularity(prior_sd=1e4).fit(Split(log_of_mask(mask)), seed=0)
    found = dense(model, log_of_mask(mask))
    np.testing.assert_allclose(found.sum(axis=0), mask.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), mask.sum(axis=1), atol=1e-4)


def test_those_who_rate_nothing_or_everything_have_propensities_inside() -> None:
    mask = random_mask(np.full((30, 20), 0.3), seed=3)
    mask[0], mask[1], mask[:, 0] = False, True, False
    mask[1, 0] = True
    log = log_of_mask(mask)
    for model in (ItemPopularity(), UserPopularity(), UserItemPopularity()):
        found = dense(model.fit(Split(log), seed=0), log)
        assert found.min() > 0.0
        assert found.max() < 1.0


def test_where_everything_is_rated_the_propensity_is_one() -> None:
    log = log_of_mask(np.ones((4, 3), dtype=bool))
    for model in (Uniform(), ItemPopularity(), UserPopularity(), UserItemPopularity()):
        np.testing.assert_array_equal(dense(model.fit(Split(log), seed=0), log), 1.0)


def test_two_way_popularity_recovers_the_simulated_mask() -> None:
    world = simulated("popularity")
    log = world.split.mnar_train
    found = {model: dense(model().fit(world.split, seed=0), log) for model in (Uniform, ItemPopularity, UserPopularity)}
    two_way = dense(UserItemPopularity().fit(world.split, seed=0), log)
    least = cross_entropy(world.truth, world.truth)
    excess = {model: cross_entropy(world.truth, p) - least for model, p in found.items()}
    assert excess[ItemPopularity] < 0.7 * excess[Uniform]
    assert excess[UserPopularity] < 0.7 * excess[Uniform]
    # 12 ratings a user leave the log-odds of a user a standard error of about .3, against a spread of .8.
    assert cross_entropy(world.truth, two_way) - least < 0.1 * excess[Uniform]
    correlation = np.corrcoef(np.log(two_way).ravel(), np.log(world.truth).ravel())[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_settings_must_be_above_zero(value: float) -> None:
    with pytest.raises(ConfigError, match="smoothing must be a number above 0"):
        ItemPopularity(smoothing=value)
    with pytest.raises(ConfigError, match="prior_sd must be a number above 0"):
        UserItemPopularity(prior_sd=value)
