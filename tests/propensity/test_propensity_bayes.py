"""Naive Bayes and multifactorial propensities: Bayes' rule by hand, and the simulator's selection."""

import numpy as np
import pytest
from worlds import World, simulated

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.naive_bayes import MultifactorialPropensity, NaiveBayes

IDS = {"scale": "1,3", "user_ids": np.arange(4), "catalogue": np.arange(5)}


@pytest.fixture
def split() -> Split:
    """4 x 5 cells; by choice one 1, no 2, three 3s; labels three 1s, two 2s, one 3."""
    train = RatingLog.from_arrays([0, 0, 1, 2], [0, 1, 1, 1], [1, 3, 3, 3], **IDS)
    labels = RatingLog.from_arrays([3, 3, 3, 2, 2, 1], [0, 1, 2, 0, 3, 4], [1, 1, 2, 2, 3, 1], **IDS)
    return Split(train, mcar_labels=labels)


def test_naive_bayes_is_bayes_rule(split: Split) -> None:
    model = NaiveBayes(smoothing=1e-9).fit(split, seed=0)
    # P(r | s) P(s) / P(r): 1/4 * 4/20 / (3/6); none; 3/4 * 4/20 / (1/6).
    np.testing.assert_allclose(model.by_level, [0.1, 0.0, 0.9], atol=1e-8)
    smoothed = NaiveBayes(smoothing=1.0).fit(split, seed=0)
    np.testing.assert_allclose(smoothed.by_level, [2 / 7 * 0.2 / (4 / 9), 1 / 7 * 0.2 / (3 / 9), 4 / 7 * 0.2 / (2 / 9)])
    np.testing.assert_array_equal(
        smoothed.propensity(np.array([3, 0]), np.array([4, 4]), np.array([3.0, 1.0])), smoothed.by_level[[2, 0]]
    )


def test_propensities_of_rated_cells_count_all_cells(split: Split) -> None:
    """Sum of 1 / P over the ratings is the number of cells, whatever the labels say, where every level was chosen."""
    train = RatingLog.from_arrays([0, 0, 1, 2], [0, 1, 1, 2], [1, 3, 2, 3], **IDS)
    model = NaiveBayes(smoothing=1e-9).fit(Split(train, mcar_labels=split.mcar_labels), seed=0)
    assert (1.0 / model.of_log(train)).sum() == pytest.approx(20.0)


def test_an_estimate_above_one_becomes_one(split: Split) -> None:
    train = RatingLog.from_arrays([0, 0, 1, 2, 3], [0, 1, 1, 1, 2], [3, 3, 3, 3, 3], **IDS)
    assert NaiveBayes(smoothing=1e-9).fit(Split(train, mcar_labels=split.mcar_labels), seed=0).by_level[2] == 1.0


def test_multifactorial_by_hand(split: Split) -> None:
    model = MultifactorialPropensity(label_smoothing=2.0, rating_smoothing=0.5).fit(split, seed=0)
    # Item 4, level 3: chosen no time of 4 ratings; no label of level 3 for it, of one in all.
    chosen = (0 + 0.5) / (4 + 0.5 * 15)
    all_cells = (0 + 2.0) / (1 + 2.0 * 5) * (1 + 1) / (6 + 3)
    assert model.by_item[4, 2] == pytest.approx(chosen * 0.2 / all_cells)
    # Item 0, level 1: chosen once; one label of three.
    assert model.by_item[0, 0] == pytest.approx(1.5 / 11.5 * 0.2 / ((1 + 2.0) / (3 + 10.0) * 4 / 9))
    # Item 1, level 3, chosen three times: more than there could be.
    assert model.by_item[1, 2] == 1.0
    found = model.propensity(np.array([0, 3]), np.array([4, 0]), np.array([3.0, 1.0]))
    np.testing.assert_array_equal(found, [model.by_item[4, 2], model.by_item[0, 0]])


def test_multifactorial_with_much_smoothing_of_labels_ignores_whose_items_they_are(split: Split) -> None:
    labels = split.mcar_labels
    assert labels is not None
    moved = RatingLog.from_arrays(labels.rows, (labels.items + 1) % 5, labels.ratings, **IDS)
    first, second = (
        MultifactorialPropensity(label_smoothing=1e9).fit(Split(split.mnar_train, mcar_labels=part), seed=0).by_item
        for part in (labels, moved)
    )
    np.testing.assert_allclose(first, second, rtol=1e-6)


def true_propensities(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Mean true propensity of each (item, level), (P, R), and how many cells are behind it."""
    sums, sizes = (
        np.stack([(weight * (world.ratings == level)).sum(axis=0) for level in range(1, 6)], axis=1)
        for weight in (world.truth, np.ones_like(world.truth))
    )
    return sums / np.maximum(sizes, 1), sizes


@pytest.mark.parametrize("seed", [0, 1])
def test_selection_of_the_simulator_is_recovered(seed: int) -> None:
    world = simulated("r3-like", 2000, 300, 12.0, seed=seed)
    truth, sizes = true_propensities(world)
    by_level = (truth * sizes).sum(axis=0) / sizes.sum(axis=0)
    model = NaiveBayes().fit(world.split, seed=0)
    labels = world.split.mcar_labels
    assert labels is not None
    # The delta method: labels are few, so their counts make most of the error of log P(r).
    marginal = sizes.sum(axis=0) / sizes.sum()
    standard_error = np.sqrt((1 - marginal) / (labels.n_ratings * marginal))
    assert (np.abs(np.log(model.by_level / by_level)) < 3.0 * standard_error + 0.05).all()
    # It tells love from indifference, and its order of levels is that of the simulator.
    assert model.by_level[4] > 5 * model.by_level[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_item_and_rating_together_come_nearer_the_truth(seed: int) -> None:
    world = simulated("r3-like", 2000, 300, 12.0, seed=seed)
    truth, sizes = true_propensities(world)
    known = sizes > 20

    def error(found: np.ndarray) -> float:
        gaps = np.square(np.log(np.broadcast_to(found, truth.shape)[known] / truth[known]))
        return float(np.sqrt((sizes[known] * gaps).sum() / sizes[known].sum()))

    naive = error(NaiveBayes().fit(world.split, seed=0).by_level)
    both = error(MultifactorialPropensity().fit(world.split, seed=0).by_item)
    assert both < 0.7 * naive
    assert both < error(MultifactorialPropensity(label_smoothing=0.01).fit(world.split, seed=0).by_item)


def test_scales_without_levels_and_settings_out_of_range_are_refused() -> None:
    real = {"scale": "0,1,real", "user_ids": np.arange(2), "catalogue": np.arange(2)}
    train = RatingLog.from_arrays([0], [0], [0.3], **real)
    labels = RatingLog.from_arrays([1], [1], [0.7], **real)
    for model in (NaiveBayes(), MultifactorialPropensity()):
        with pytest.raises(DataError, match="levels are needed"):
            model.fit(Split(train, mcar_labels=labels), seed=0)
    with pytest.raises(ConfigError, match="smoothing must be a number above 0"):
        NaiveBayes(smoothing=0.0)
    with pytest.raises(ConfigError, match="rating_smoothing must be a number above 0"):
        MultifactorialPropensity(rating_smoothing=-1.0)
