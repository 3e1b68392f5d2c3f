"""What all propensity models refuse, and what all of the registry offer."""

from collections.abc import Callable

import numpy as np
import pytest
from worlds import log_of_mask, random_mask, simulated

from mnar_recsys.data import FeatureTable, RatingLog, Split
from mnar_recsys.errors import ConfigError, DataError, NotFittedError
from mnar_recsys.propensity.given import GivenPropensity
from mnar_recsys.propensity.naive_bayes import NaiveBayes
from mnar_recsys.propensity.popularity import UserItemPopularity
from mnar_recsys.propensity.registry import PROPENSITIES, find_propensity
from mnar_recsys.propensity.uniform import Uniform

NAMES = [
    "uniform", "item_popularity", "user_popularity", "user_item_popularity", "naive_bayes", "multifactorial",
    "logistic", "als", "lmf", "one_bit", "poisson",
]  # fmt: skip


@pytest.fixture(scope="module")
def split() -> Split:
    """Small, with labels and features; some users and items have no rating."""
    world = simulated("r3-like", 120, 60, 4.0, seed=1)
    rng = np.random.default_rng(0)
    features = {
        "user_features": FeatureTable.from_array(rng.normal(size=(120, 2))),
        "item_features": FeatureTable.from_array(rng.integers(2, size=(60, 3))),
    }
    train = world.split.mnar_train.with_features(**features)
    assert (np.diff(train.indptr) == 0).any()
    return Split(train, mcar_labels=world.split.mcar_labels)


def test_registry_has_the_stated_names() -> None:
    assert list(PROPENSITIES) == NAMES
    assert find_propensity("uniform") is Uniform
    with pytest.raises(ConfigError, match=r"propensity must be one of uniform, .*; found 'popularity'"):
        find_propensity("popularity")


@pytest.mark.parametrize("name", NAMES)
def test_all_models_give_probabilities_that_the_seed_decides(name: str, split: Split) -> None:
    rows, columns = np.indices((120, 60)).reshape(2, -1)
    ratings = 1.0 + (rows + columns) % 5
    first, second = (find_propensity(name)().fit(split, seed=3).propensity(rows, columns, ratings) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float64
    assert first.min() > 0.0
    assert first.max() <= 1.0
    model = find_propensity(name)().fit(split, seed=3)
    log = split.mnar_train
    # The same cell gets the same answer in any company.
    np.testing.assert_allclose(
        model.of_log(log)[7:9], model.propensity(log.rows[7:9], log.items[7:9], log.ratings[7:9])
    )
    assert model.propensity(rows[:0], columns[:0], ratings[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_a_split_with_a_test_is_refused(name: str, split: Split) -> None:
    train = split.mnar_train
    free = RatingLog.from_arrays(
        [train.users.ids[0]],
        [train.catalogue.ids[0]],
        [3.0],
        scale="1,5",
        user_ids=train.users,
        catalogue=train.catalogue,
    )
    tested = Split(train, mcar_test=free)
    with pytest.raises(DataError, match="must not be fitted with the test; found 1 ratings in mcar_test"):
        find_propensity(name)().fit(tested, seed=0)


def test_models_say_what_they_lack(split: Split) -> None:
    bare = Split(log_of_mask(random_mask(np.full((8, 6), 0.4), seed=0)))
    for name in ("naive_bayes", "multifactorial"):
        with pytest.raises(DataError, match="needs randomly collected ratings"):
            find_propensity(name)().fit(bare, seed=0)
    with pytest.raises(DataError, match="needs user or item features"):
        find_propensity("logistic")().fit(bare, seed=0)
    empty = bare.mnar_train.select_ratings(np.zeros(bare.mnar_train.n_ratings, dtype=bool))
    with pytest.raises(DataError, match="mnar_train has none"):
        Uniform().fit(Split(empty), seed=0)
    with pytest.raises(NotFittedError, match="Uniform must be fitted first"):
        Uniform().of_log(bare.mnar_train)
    with pytest.raises(DataError, match="NaiveBayes needs the cells' ratings"):
        NaiveBayes().fit(split, seed=0).propensity(np.array([0]), np.array([0]))


def test_cells_outside_the_split_are_refused(split: Split) -> None:
    model = UserItemPopularity().fit(split, seed=0)
    for cell, message in (
        ((-1, 0), r"row indices must be from 0 to 119; found -1..-1"),
        ((120, 0), r"row indices must be from 0 to 119; found 120..120"),
        ((0, 60), r"column indices must be from 0 to 59"),
    ):
        with pytest.raises(DataError, match=message):
            model.propensity(np.array([cell[0]]), np.array([cell[1]]))
    with pytest.raises(DataError, match="equally long"):
        model.propensity(np.array([0, 1]), np.array([0]))
    with pytest.raises(DataError, match="those of the split fitted to"):
        model.of_log(log_of_mask(random_mask(np.full((120, 60), 0.1), seed=0)))


def test_given_propensities_pass_through_and_are_checked(split: Split) -> None:
    world = simulated("r3-like", 120, 60, 4.0, seed=1)

    def truth(rows: np.ndarray, columns: np.ndarray, ratings: np.ndarray | None) -> np.ndarray:
        assert ratings is None
        return world.truth[rows, columns]

    model = GivenPropensity(truth, depends_on_rating=False).fit(split, seed=0)
    log = split.mnar_train
    np.testing.assert_array_equal(model.of_log(log), world.truth[log.rows, log.items])
    by_rating = GivenPropensity(lambda _rows, _columns, ratings: ratings / 10, depends_on_rating=True)
    np.testing.assert_allclose(by_rating.fit(split, seed=0).of_log(log), log.ratings / 10)

    def refused(function: Callable[..., np.ndarray], message: str) -> None:
        with pytest.raises(DataError, match=message):
            GivenPropensity(function, depends_on_rating=False).fit(split, seed=0).of_log(log)

    refused(lambda rows, _columns, _ratings: np.zeros(len(rows)), "above 0 and at most 1; found 0 at position 0")
    refused(lambda rows, _columns, _ratings: np.full(len(rows), np.nan), "must be finite")
    refused(lambda _rows, _columns, _ratings: np.array([0.5]), "equally long")
