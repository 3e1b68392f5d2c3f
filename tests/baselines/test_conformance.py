"""What every method of the registry promises, on one tiny log with a user and an item that have no ratings."""

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.base import Baseline
from baselines.registry import BASELINES
from mnar_recsys.data import RatingLog, Split, split_ratings
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.errors import DataError, NotFittedError

N_USERS, N_ITEMS = 120, 40
UNRATED_USER, UNRATED_ITEM = 1, 1
UNKNOWN = 10_000

# Fits that are slow for their number of steps: fewer parameters and longer steps change nothing that is promised.
QUICK: Mapping[str, dict[str, Any]] = {
    "gina": {"latent_size": 3, "hidden_size": 4, "learning_rate": 0.05},
    "mf_mnar": {"size": 2, "exposure_size": 1, "learning_rate": 0.1, "batch_size": 512},
}

CONSTANTS = {"constant_train", "constant_mcar"}
# These explain who rates what by the rating alone. Where popularity and activity decide, they take the unpopular for
# the rarely rated level; what they can do shows where the rating decides.
BY_RATING_ALONE = {"cptv", "logit_vd", "gina"}

all_methods = pytest.mark.parametrize("name", BASELINES)


@cache
def popularity() -> Simulation:
    return simulate_ratings("popularity", n_users=N_USERS, n_items=N_ITEMS, ratings_per_user=12, seed=1)


@cache
def full_split() -> Split:
    simulation = popularity()
    log = simulation.train
    train = log.select_ratings((log.rows != UNRATED_USER - 1) & (log.items != UNRATED_ITEM - 1))
    test, labels = split_ratings(simulation.test, 0.9, seed=0)
    return Split(mnar_train=train, mcar_labels=labels, mcar_test=test).hold_out(0.1, seed=0)


def split() -> Split:
    return full_split().for_training()


def make(name: str) -> Baseline:
    return BASELINES[name](**QUICK.get(name, {}))


@cache
def fitted(name: str) -> Baseline:
    return make(name).fit(split(), seed=0)


def all_pairs() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    users, items = np.indices((N_USERS, N_ITEMS)).reshape(2, -1) + 1
    return users, items


def odd_pairs() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a rated, an unrated and an unknown user with a rated, an unrated and an unknown item."""
    users, items = np.meshgrid([5, UNRATED_USER, UNKNOWN], [7, UNRATED_ITEM, UNKNOWN])
    return users.ravel(), items.ravel()


@all_methods
def test_a_split_with_a_test_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"must not see the test.*for_training"):
        make(name).fit(full_split(), seed=0)


@all_methods
def test_nothing_is_predicted_before_fit(name: str) -> None:
    with pytest.raises(NotFittedError, match="must be fitted before it predicts"):
        make(name).predict(*all_pairs())
    with pytest.raises(NotFittedError, match="must be fitted before it predicts"):
        make(name).validation_loss(split())


@all_methods
def test_ratings_are_finite_and_on_the_scale(name: str) -> None:
    found = fitted(name).predict(*all_pairs())
    assert found.shape == (N_USERS * N_ITEMS,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert found.min() >= 1.0
    assert found.max() <= 5.0
    assert name in CONSTANTS or found.std() > 0.01


@all_methods
def test_the_unrated_and_the_unknown_are_predicted_too(name: str) -> None:
    found = fitted(name).predict(*odd_pairs())
    assert np.isfinite(found).all()
    assert found.min() >= 1.0
    assert found.max() <= 5.0


@all_methods
def test_a_prediction_does_not_depend_on_what_else_is_asked(name: str) -> None:
    users, items = all_pairs()
    whole = fitted(name).predict(users, items)
    some = np.random.default_rng(0).permutation(len(users))[:50]
    np.testing.assert_allclose(fitted(name).predict(users[some], items[some]), whole[some], atol=1e-5)


@all_methods
def test_ids_of_another_kind_and_unequal_lengths_are_refused(name: str) -> None:
    with pytest.raises(DataError):
        fitted(name).predict(np.array(["one"], dtype=object), np.array([1]))
    with pytest.raises(DataError, match="equally long"):
        fitted(name).predict(np.array([1, 2]), np.array([1]))


@all_methods
def test_one_seed_gives_one_fit_and_leaves_torch_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    again = make(name).fit(split(), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(again.predict(*all_pairs()), fitted(name).predict(*all_pairs()))


@all_methods
def test_levels_have_probabilities_or_none_are_offered(name: str) -> None:
    model = fitted(name)
    if not model.has_level_probabilities:
        with pytest.raises(DataError, match="predicts means only"):
            model.level_probabilities(*all_pairs())
        return
    for users, items in (all_pairs(), odd_pairs()):
        probabilities = model.level_probabilities(users, items)
        assert probabilities.shape == (len(users), 5)
        assert probabilities.min() >= 0.0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(probabilities @ np.arange(1.0, 6.0), model.predict(users, items), atol=1e-4)


@all_methods
def test_labels_are_counted_where_they_are_read(name: str) -> None:
    model, labels = fitted(name), split().n_labels
    assert model.n_labels == (labels if model.needs_labels else 0)
    assert model.needs_labels or not model.uses_labels
    if model.uses_labels:
        with pytest.raises(DataError, match="mcar_labels"):
            make(name).fit(Split(mnar_train=split().mnar_train), seed=0)


@all_methods
def test_validation_needs_held_out_ratings_and_is_an_error(name: str) -> None:
    loss = fitted(name).validation_loss(split())
    assert math.isfinite(loss)
    assert 0.0 < loss < 16.0


@all_methods
def test_tuning_names_settings_of_the_method(name: str) -> None:
    method = BASELINES[name]
    settings = inspect.signature(method).parameters
    for argument, values in method.search_space.items():
        assert settings[argument].kind is inspect.Parameter.KEYWORD_ONLY
        assert 2 <= len(values) <= 5
        for value in values:
            assert getattr(method(**{argument: value}), argument) == value
    assert len(method.search_space) <= 3


def excess_error(model: Baseline) -> float:
    """Mean squared distance to the expected ratings of all cells: the error less the noise that nobody can predict."""
    expected = popularity().truth.expected_rating(*all_pairs())
    return float(np.square(model.predict(*all_pairs()) - expected).mean())


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in CONSTANTS | BY_RATING_ALONE])
def test_beats_the_constant_where_nothing_but_popularity_selects(name: str) -> None:
    assert excess_error(fitted(name)) < 0.95 * excess_error(fitted("constant_train"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BY_RATING_ALONE))
def test_beats_the_constant_where_the_rating_selects(name: str) -> None:
    simulation = simulate_ratings("r3-like", n_users=1000, n_items=300, ratings_per_user=12, seed=0)
    test = simulation.test
    pairs = test.users.take(test.rows), test.catalogue.take(test.items)

    def error(name: str) -> float:
        model = make(name).fit(Split(mnar_train=simulation.train), seed=0)
        return float(np.square(model.predict(*pairs) - test.ratings).mean())

    assert error(name) < 0.75 * error("constant_train")


def test_every_name_is_another_method() -> None:
    assert len(set(BASELINES.values())) == len(BASELINES)
    assert all(issubclass(method, Baseline) for method in BASELINES.values())


def test_a_log_without_levels_is_fitted_or_refused() -> None:
    log = split().mnar_train
    real = RatingLog.from_arrays(
        log.users.take(log.rows), log.catalogue.take(log.items), log.ratings, scale="1,5,real",
        user_ids=log.users.ids, catalogue=log.catalogue.ids,
    )  # fmt: skip
    for name in ("constant_train", "bias", "mf", "pmf", "autorec_user", "autorec_item", "gaussian_vae"):
        found = make(name).fit(Split(mnar_train=real), seed=0).predict(*odd_pairs())
        assert np.isfinite(found).all()
