"""The factorised mask: calibrated on cells it did not see, better than margins where there is more to see."""

import numpy as np
import pytest
from worlds import block_probability, cross_entropy, dense, log_of_mask, random_mask, simulated

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.diagnostics import calibration_table, expected_calibration_error, overlap
from mnar_recsys.propensity.factorised import FactorisedMask, LogisticFactorisedMask
from mnar_recsys.propensity.popularity import UserItemPopularity

BLOCKS = block_probability(240, 160)


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of_mask(random_mask(BLOCKS, seed=0))


@pytest.fixture(scope="module")
def model(log: RatingLog) -> FactorisedMask:
    return FactorisedMask().fit(Split(log), seed=0)


def test_planted_blocks_are_found(log: RatingLog, model: FactorisedMask) -> None:
    found = dense(model, log)
    least = cross_entropy(BLOCKS, BLOCKS)
    margins = cross_entropy(BLOCKS, dense(UserItemPopularity().fit(Split(log), seed=0), log)) - least
    assert cross_entropy(BLOCKS, found) - least < 0.1 * margins
    assert found[BLOCKS == 0.35].mean() == pytest.approx(0.35, abs=0.02)
    assert found[BLOCKS == 0.05].mean() == pytest.approx(0.05, abs=0.01)


def test_propensities_are_calibrated_on_this_mask_and_on_another_draw(log: RatingLog, model: FactorisedMask) -> None:
    for seen in (log, log_of_mask(random_mask(BLOCKS, seed=1))):
        table = calibration_table(model, seen)
        assert expected_calibration_error(table) < 0.025
        # From the lowest bin to the highest the shares differ by a factor of seven, and the propensities follow.
        assert table["observed"].iloc[-1] > 5 * table["observed"].iloc[0]


def test_a_rating_does_not_raise_its_own_propensity(log: RatingLog, model: FactorisedMask) -> None:
    found = dense(model, log)
    is_inside, rated = BLOCKS == 0.35, random_mask(BLOCKS, seed=0)
    # In the same block, rated cells look like the others: a fit that had seen them would not say so.
    assert found[is_inside & rated].mean() == pytest.approx(found[is_inside & ~rated].mean(), rel=0.03)
    assert overlap(log, model.of_log(log)).mass == pytest.approx(1.0, abs=0.1)


def test_the_fit_of_a_cell_does_not_know_whether_it_was_rated(log: RatingLog, model: FactorisedMask) -> None:
    inside = np.flatnonzero(BLOCKS[log.rows, log.items] == 0.35)[:5]
    for place in inside:
        keep = np.arange(log.n_ratings) != place
        without = FactorisedMask().fit(Split(log.select_ratings(keep)), seed=0)
        cell = log.rows[[place]], log.items[[place]]
        np.testing.assert_allclose(without._covariates(*cell), model._covariates(*cell), rtol=1e-3)


def test_logistic_factors_find_a_logistic_mask() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(600, 3)), rng.normal(size=(300, 3))
    log_odds = 0.7 * users @ items.T + 0.5 * rng.normal(size=(600, 1)) + 0.8 * rng.normal(size=300) - 3.2
    truth = 1 / (1 + np.exp(-log_odds))
    split = Split(log_of_mask(random_mask(truth, seed=0)))
    least = cross_entropy(truth, truth)
    margins, logistic = (
        cross_entropy(truth, dense(model.fit(split, seed=0), split.mnar_train)) - least
        for model in (UserItemPopularity(), LogisticFactorisedMask())
    )
    assert logistic < 0.75 * margins
    fitted = LogisticFactorisedMask().fit(split, seed=0)
    # Calibrated: the expected number of ratings is the actual one.
    assert dense(fitted, split.mnar_train).sum() == pytest.approx(split.mnar_train.n_ratings, rel=0.03)
    inside, rated = truth > 0.3, random_mask(truth, seed=0)
    found = dense(fitted, split.mnar_train)
    weights = truth[inside & rated].mean() / truth[inside & ~rated].mean()
    assert found[inside & rated].mean() == pytest.approx(weights * found[inside & ~rated].mean(), rel=0.06)


def test_simulated_masks_are_recovered() -> None:
    for preset in ("popularity", "r3-like"):
        world = simulated(preset)
        train = world.split.mnar_train
        found = dense(FactorisedMask().fit(world.split, seed=0), train)
        least = cross_entropy(world.truth, world.truth)
        share = np.full_like(world.truth, train.n_ratings / world.truth.size)
        margins = dense(UserItemPopularity().fit(world.split, seed=0), train)
        uniform, two_way, factors = (cross_entropy(world.truth, p) - least for p in (share, margins, found))
        # The simulator's mask is additive, given the rating: factors cannot gain, and must not lose.
        assert factors < two_way + 0.04 * uniform
        assert found.mean() == pytest.approx(share[0, 0], rel=0.03)


def test_folds_are_even_and_seeded(model: FactorisedMask) -> None:
    rows, columns = np.indices(BLOCKS.shape).reshape(2, -1)
    fold = model._fold(rows, columns)
    shares = np.bincount(fold, minlength=5) / fold.size
    np.testing.assert_allclose(shares, 0.2, atol=4 * np.sqrt(0.16 / fold.size))
    # Of a row no less than of all cells, and neighbours are not alike.
    by_row = np.stack([np.bincount(part, minlength=5) for part in fold.reshape(BLOCKS.shape)])
    assert np.abs(by_row - 32).max() < 5 * np.sqrt(160 * 0.16)
    assert (fold[1:] == fold[:-1]).mean() == pytest.approx(0.2, abs=0.01)
    other = FactorisedMask()
    other._key, other._n_items = model._key + np.uint64(1), model._n_items
    assert (other._fold(rows, columns) == fold).mean() == pytest.approx(0.2, abs=0.02)


def test_ratings_all_in_one_fold_and_bad_settings_are_refused() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 2] = True
    with pytest.raises(DataError, match="ratings in two folds or more; found all 1 in one"):
        FactorisedMask().fit(Split(log_of_mask(mask)), seed=0)
    with pytest.raises(ConfigError, match="folds must be a whole number of at least 2; found 1"):
        FactorisedMask(folds=1)
    with pytest.raises(ConfigError, match="shrinkage must be a number above 0"):
        FactorisedMask(shrinkage=0.0)
    with pytest.raises(ConfigError, match="regularization must be a number above 0"):
        LogisticFactorisedMask(regularization=-1.0)
    with pytest.raises(DataError, match="needs unrated cells"):
        FactorisedMask().fit(Split(log_of_mask(np.ones((9, 9), dtype=bool))), seed=0)


def test_the_seed_changes_the_folds(log: RatingLog, model: FactorisedMask) -> None:
    other = FactorisedMask().fit(Split(log), seed=1)
    assert not np.array_equal(other.of_log(log), model.of_log(log))
