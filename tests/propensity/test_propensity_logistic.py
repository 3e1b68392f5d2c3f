"""Logistic regression on features: planted weights, sampling undone, one side alone."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from worlds import cross_entropy, dense, log_of_mask, random_mask

from mnar_recsys.data import FeatureTable, RatingLog, Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.logistic import LogisticFeatures
from mnar_recsys.propensity.popularity import UserItemPopularity

N, P = 300, 120
RNG = np.random.default_rng(4)
USER = np.stack([RNG.integers(2, size=N), RNG.normal(size=N)], axis=1)
ITEM = np.stack([RNG.integers(2, size=P), RNG.normal(size=P)], axis=1)
TRUTH = expit(
    -2.6 + 0.6 * USER[:, :1] - 0.5 * ITEM[:, 1] + 1.6 * USER[:, :1] * ITEM[:, 0] - 0.7 * USER[:, 1:] * ITEM[:, 1]
)
EVERYTHING = {"unrated_per_rating": 1e6, "max_cells": 10**9}


def log_with(user: np.ndarray | None = USER, item: np.ndarray | None = ITEM) -> RatingLog:
    tables = {"user_features": user, "item_features": item}
    given = {name: FeatureTable.from_array(values) for name, values in tables.items() if values is not None}
    return log_of_mask(random_mask(TRUTH, seed=5), **given)


def fitted(log: RatingLog, **settings: Any) -> np.ndarray:
    return dense(LogisticFeatures(**settings).fit(Split(log), seed=0), log)


def test_planted_products_are_recovered_where_margins_see_nothing() -> None:
    log = log_with()
    least = cross_entropy(TRUTH, TRUTH)
    margins = cross_entropy(TRUTH, dense(UserItemPopularity().fit(Split(log), seed=0), log)) - least
    assert cross_entropy(TRUTH, fitted(log)) - least < 0.15 * margins
    assert cross_entropy(TRUTH, fitted(log, products=False)) - least > 0.8 * margins


def test_all_cells_without_offsets_is_the_plain_regression() -> None:
    log = log_with()
    rows, columns = np.indices((N, P)).reshape(2, -1)

    def scale(values: np.ndarray) -> np.ndarray:
        return np.stack([values[:, 0], (values[:, 1] - values[:, 1].mean()) / values[:, 1].std()], axis=1)

    user, item = (
        scale(USER)[rows],
        scale(ITEM)[columns],
    )
    design = np.column_stack([user, item, np.einsum("na,nb->nab", user, item).reshape(len(user), -1)])
    regression = LogisticRegression(C=1.0, tol=1e-8, solver="newton-cholesky")
    regression.fit(design, random_mask(TRUTH, seed=5).ravel())
    expected = regression.predict_proba(design)[:, 1].reshape(N, P)
    np.testing.assert_allclose(fitted(log, offsets=False, **EVERYTHING), expected, rtol=0.01)


@pytest.mark.parametrize("settings", [{"unrated_per_rating": 1.0}, {"unrated_per_rating": 2.0, "max_cells": 9000}])
def test_sampling_is_undone_by_the_intercept(settings: dict[str, Any]) -> None:
    log = log_with()
    whole, part = fitted(log, **EVERYTHING), fitted(log, **settings)
    # The mean would be three times too high and more without the correction.
    assert part.mean() == pytest.approx(whole.mean(), rel=0.05)
    gap = logit(part) - logit(whole)
    assert abs(gap.mean()) < 0.08
    assert gap.std() < 0.15


def test_units_of_a_feature_do_not_matter() -> None:
    scaled = USER * [1.0, 1000.0] + [0.0, 2000.0]
    np.testing.assert_allclose(fitted(log_with(user=scaled)), fitted(log_with()), rtol=2e-3)


@pytest.mark.parametrize("side", ["user", "item"])
def test_features_of_one_side_are_enough(side: str) -> None:
    log = log_with(item=None) if side == "user" else log_with(user=None)
    found = fitted(log, offsets=False)
    # Nothing is known of the other side, so every row or column repeats.
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1] if side == "user" else found[:1], found.shape))
    by_kind = found[USER[:, 0] == 1].mean() / found[USER[:, 0] == 0].mean()
    assert by_kind > 2.0 if side == "user" else by_kind == pytest.approx(1.0)
    assert found.mean() == pytest.approx(TRUTH.mean(), rel=0.05)
    assert cross_entropy(TRUTH, fitted(log)) < cross_entropy(TRUTH, found)


def test_too_many_products_and_bad_settings_are_refused() -> None:
    log = log_with(user=np.tile(USER, 40), item=np.tile(ITEM, 40))
    with pytest.raises(
        ConfigError, match=r"products of features must be at most 5,000; found 6,400. Use products=False"
    ):
        LogisticFeatures().fit(Split(log), seed=0)
    with pytest.raises(ConfigError, match="ridge must be a number above 0"):
        LogisticFeatures(ridge=0.0)
    with pytest.raises(ConfigError, match="max_cells must be a whole number of at least 100; found 10"):
        LogisticFeatures(max_cells=10)
