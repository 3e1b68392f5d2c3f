"""Diagnostics of propensities: by hand, and what they say where the truth is known."""

import numpy as np
import pytest
from worlds import log_of_mask, random_mask, simulated

from mnar_recsys.data import FeatureTable, Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.diagnostics import (
    balance,
    calibration_table,
    clip,
    effective_sample_size,
    expected_calibration_error,
    overlap,
)
from mnar_recsys.propensity.given import GivenPropensity
from mnar_recsys.propensity.naive_bayes import NaiveBayes
from mnar_recsys.propensity.one_bit import OneBitCompletion
from mnar_recsys.propensity.popularity import ItemPopularity, UserItemPopularity
from mnar_recsys.propensity.uniform import Uniform


def test_clip_raises_what_is_low_and_says_how_much_that_was() -> None:
    clipped = clip([0.01, 0.5, 0.05, 0.04], 0.05)
    np.testing.assert_array_equal(clipped.values, [0.05, 0.5, 0.05, 0.05])
    assert clipped.share == 0.5
    assert clip([0.2], 0.05).share == 0.0
    assert clip([], 0.05).share == 0.0


def test_effective_sample_size_by_hand() -> None:
    assert effective_sample_size([2.0, 2.0, 2.0]) == pytest.approx(3.0)
    assert effective_sample_size([1.0, 2.0, 3.0]) == pytest.approx(36 / 14)
    assert effective_sample_size([0.0, 7.0, 0.0]) == pytest.approx(1.0)


def test_overlap_by_hand() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)
    found = overlap(log_of_mask(mask), [0.5, 0.25, 0.5, 1.0], bound=0.3)
    assert found.share_below == 0.25
    assert found.largest_weight == pytest.approx(4 / 9)
    assert found.effective_sample_size == pytest.approx(81 / 25)
    assert found.mass == pytest.approx(9 / 8)


def test_overlap_warns_in_sentences_about_what_is_bad_only() -> None:
    log = log_of_mask(random_mask(np.full((40, 30), 0.5), seed=0))
    n = log.n_ratings
    assert overlap(log, np.full(n, n / 1200)).warnings() == ()
    one_tiny = np.full(n, n / 1200)
    one_tiny[0] = 1e-4
    sentences = overlap(log, one_tiny).warnings()
    assert len(sentences) == 3
    assert sentences[0] == f"One rating carries {1e4 / (1e4 + (n - 1) * 1200 / n):.1%} of the weight of all {n:,}."
    assert "effective ratings of" in sentences[1]
    assert "instead of 100%: the propensities of rated cells are too low on the whole" in sentences[2]
    many_low = np.where(np.arange(n) % 4 == 0, 0.005, 0.9)
    assert overlap(log, many_low).warnings()[0].startswith("25% of the ratings have a propensity below 0.01: ")


def test_mass_is_one_with_true_propensities_and_shows_a_fit_that_knew_its_ratings() -> None:
    world = simulated("popularity", 300, 100, 8.0)
    log = world.split.mnar_train
    true = world.truth[log.rows, log.items]
    error = np.sqrt(((1 - world.truth) / world.truth).sum()) / world.truth.size
    assert overlap(log, true).mass == pytest.approx(1.0, abs=4 * error)
    loose = OneBitCompletion(nuclear_bound=4.0).fit(world.split, seed=0).of_log(log)
    assert overlap(log, loose).mass < 0.6
    assert "too high on the whole" in overlap(log, loose).warnings()[-1]


def test_calibration_table_by_hand() -> None:
    """Items with propensities .1 and .4; of the first one cell in ten is rated, of the second three in five."""
    mask = np.zeros((10, 2), dtype=bool)
    mask[0, 0] = mask[:6, 1] = True
    log = log_of_mask(mask)
    model = GivenPropensity(lambda _rows, columns, _ratings: np.array([0.1, 0.4])[columns], depends_on_rating=False)
    model.fit(Split(log), seed=0)
    table = calibration_table(model, log, bins=4)
    assert table.to_dict("list") == {
        "low": [0.1, 0.4],
        "high": [0.1, 0.4],
        "predicted": pytest.approx([0.1, 0.4]),
        "observed": pytest.approx([0.1, 0.6]),
        "n": [10, 10],
    }
    assert expected_calibration_error(table) == pytest.approx(0.1)


def test_calibration_sees_what_is_wrong_and_a_sample_of_cells_says_the_same() -> None:
    world = simulated("popularity")
    log = world.split.mnar_train
    good = UserItemPopularity().fit(world.split, seed=0)
    table = calibration_table(good, log)
    assert table["n"].sum() == world.truth.size
    np.testing.assert_allclose(table["n"], world.truth.size / 10, rtol=0.01)
    assert table["predicted"].is_monotonic_increasing
    assert expected_calibration_error(table) < 0.004
    sampled = calibration_table(good, log, max_cells=100_000, seed=1)
    assert sampled["n"].sum() == 100_000
    assert expected_calibration_error(sampled) < 0.006
    twice = GivenPropensity(lambda rows, columns, _: 0.5 * good.propensity(rows, columns), depends_on_rating=False)
    halved = expected_calibration_error(calibration_table(twice.fit(world.split, seed=0), log))
    assert halved == pytest.approx(0.5 * log.n_ratings / world.truth.size, rel=0.1)
    constant = calibration_table(Uniform().fit(world.split, seed=0), log)
    assert len(constant) == 1
    assert expected_calibration_error(constant) < 1e-12


def test_balance_by_hand() -> None:
    mask = np.array([[1, 1], [1, 0], [0, 0]], dtype=bool)
    log = log_of_mask(mask, user_features=FeatureTable(("age",), np.array([[10.0], [20.0], [60.0]])))
    table = balance(log, [0.5, 0.25, 1.0]).set_index("covariate")  # cells (0, 0), (0, 1), (1, 0); weights 2, 4, 1
    assert list(table.index) == ["item popularity", "user activity", "user age"]
    spread = np.std([10, 20, 60])
    age = table.loc["user age"]
    assert age["all"] == pytest.approx(30)
    assert age["rated"] == pytest.approx(40 / 3)
    assert age["weighted"] == pytest.approx((6 * 10 + 20) / 7)
    assert age["rated_difference"] == pytest.approx((40 / 3 - 30) / spread)
    assert age["weighted_difference"] == pytest.approx((80 / 7 - 30) / spread)
    item = table.loc["item popularity"]  # 2/3 and 1/3
    assert item["all"] == pytest.approx(0.5)
    assert item["rated"] == pytest.approx(5 / 9)
    assert item["weighted"] == pytest.approx((3 * 2 / 3 + 4 / 3) / 7)
    assert item["weighted_difference"] == pytest.approx((10 / 21 - 0.5) / (1 / 6))
    constant = balance(log.with_features(user_features=FeatureTable(("one",), np.ones((3, 1)))), [0.5, 0.25, 1.0])
    assert constant.iloc[-1]["weighted_difference"] == 0.0


def test_weighing_by_two_way_propensities_balances_the_simulator() -> None:
    world = simulated("popularity")
    log = world.split.mnar_train
    names = ["item popularity", "user activity"]
    before = balance(log, Uniform().fit(world.split, seed=0).of_log(log)).set_index("covariate")
    assert (before["rated_difference"][names] > 0.5).all()
    np.testing.assert_allclose(before["weighted_difference"], before["rated_difference"])
    after = balance(log, UserItemPopularity().fit(world.split, seed=0).of_log(log)).set_index("covariate")
    assert (after["weighted_difference"][names].abs() < 0.15).all()
    items_only = balance(log, ItemPopularity().fit(world.split, seed=0).of_log(log)).set_index("covariate")
    assert abs(items_only["weighted_difference"]["item popularity"]) < 0.15
    assert items_only["weighted_difference"]["user activity"] > 0.5


def test_what_does_not_fit_is_refused() -> None:
    world = simulated("r3-like", 120, 60, 4.0, seed=1)
    log = world.split.mnar_train
    with pytest.raises(ConfigError, match="low must be above 0 and at most 1; found 0"):
        clip([0.5], 0.0)
    with pytest.raises(ConfigError, match="bound must be above 0 and at most 1; found 2"):
        overlap(log, np.full(log.n_ratings, 0.1), bound=2.0)
    for values, message in (
        ([0.5, 0.0], "above 0 and at most 1; found 0 at position 1"),
        ([1.5], "above 0 and at most 1; found 1.5 at position 0"),
        ([[0.5]], "one-dimensional"),
        ([np.nan], "must be finite"),
    ):
        with pytest.raises(DataError, match=message):
            clip(values, 0.1)
    for weights in ([-1.0, 2.0], [0.0, 0.0], []):
        with pytest.raises(DataError, match="weights must be at least 0, and one above 0"):
            effective_sample_size(weights)
    with pytest.raises(DataError, match=f"one for each rating, and one is needed; found 1 for {log.n_ratings} ratings"):
        balance(log, [0.5])
    with pytest.raises(DataError, match="NaiveBayes depends on the rating"):
        calibration_table(NaiveBayes().fit(world.split, seed=0), log)
    with pytest.raises(ConfigError, match="bins must be a whole number of at least 1"):
        calibration_table(Uniform().fit(world.split, seed=0), log, bins=0)
