"""The simulator does what its presets say, and its truth is the truth of its logs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.data.simulate_design import make_design
from mnar_recsys.data.simulate_files import write_simulation
from mnar_recsys.data.simulate_presets import PRESETS, R3_RANDOM_MARGINAL, R3_SELECTED_MARGINAL, find_preset
from mnar_recsys.errors import ConfigError, DataError

LEVELS = np.arange(1.0, 6.0)


def shares(log: RatingLog) -> np.ndarray:
    return np.bincount(log.ratings.astype(int), minlength=6)[1:] / log.n_ratings


def ids(log: RatingLog) -> tuple[np.ndarray, np.ndarray]:
    return log.users.take(log.rows), log.catalogue.take(log.items)


@pytest.fixture(scope="module")
def r3() -> Simulation:
    return simulate_ratings(n_users=4000, seed=3)


def test_r3_like_has_the_marginals_of_yahoo_r3(r3: Simulation) -> None:
    np.testing.assert_allclose(shares(r3.train), R3_SELECTED_MARGINAL, atol=0.02)
    np.testing.assert_allclose(shares(r3.test), R3_RANDOM_MARGINAL, atol=0.02)
    assert r3.train.n_ratings / r3.train.n_users == pytest.approx(20.0, rel=0.05)


def test_r3_like_selection_is_near_the_log_ratio_of_the_marginals(r3: Simulation) -> None:
    ratio = np.log(np.divide(R3_SELECTED_MARGINAL, R3_RANDOM_MARGINAL))
    np.testing.assert_allclose(r3.truth.selection, 1.15 * (ratio - ratio.mean()), atol=0.1)
    assert r3.truth.selection.mean() == pytest.approx(0.0, abs=1e-9)
    assert np.argmin(r3.truth.selection) == 1  # not monotone


def test_true_factors_leave_the_stated_error(r3: Simulation) -> None:
    users = np.repeat(np.arange(1, 501), 1000)
    items = np.tile(np.arange(1, 1001), 500)
    table = r3.truth.level_probabilities(users, items)
    unknowable = (table @ LEVELS**2 - (table @ LEVELS) ** 2).mean()
    assert 0.45 <= unknowable <= 0.50
    error = r3.truth.expected_rating(*ids(r3.test)) - r3.test.ratings
    assert np.square(error).mean() == pytest.approx(unknowable, abs=0.03)
    assert r3.test.ratings.var() == pytest.approx(1.12, abs=0.08)


def test_level_probabilities_are_the_frequencies_of_the_complete_ratings(r3: Simulation) -> None:
    ratings, _ = r3.truth.block(0, 400)
    users, items = np.indices(ratings.shape) + 1
    table = r3.truth.level_probabilities(users.ravel(), items.ravel())
    # Among cells that the factors call likely a 5, that share of them is.
    likely = table[:, 4] > 0.3
    assert likely.sum() > 200
    seen = (ratings.ravel()[likely] == 5).mean()
    standard_error = np.sqrt((table[likely, 4] * (1 - table[likely, 4])).mean() / likely.sum())
    assert abs(seen - table[likely, 4].mean()) < 4 * standard_error


def test_logs_are_cells_of_the_recomputed_truth(r3: Simulation) -> None:
    ratings, propensity = r3.truth.block(0, 4000)
    for log in (r3.train, r3.test, r3.labels):
        np.testing.assert_array_equal(ratings[log.rows, log.items], log.ratings)
    # Expected and actual numbers of ratings per level, from the propensities alone.
    for level in range(1, 6):
        here = ratings == level
        p = propensity[here].astype(np.float64)
        observed = (r3.train.ratings == level).sum()
        assert abs(observed - p.sum()) < 4.5 * np.sqrt((p * (1 - p)).sum())


def test_propensity_follows_the_selection() -> None:
    simulation = simulate_ratings("monotone", n_users=200, n_items=300, seed=1)
    ratings, propensity = simulation.truth.block(0, 200)
    design = simulation.truth.design
    logit = np.log(propensity / (1 - propensity))
    expected = (
        design.intercept + 0.6 * (ratings - 3.0) + simulation.truth.user_activity[:, None] + design.item_popularity
    )
    np.testing.assert_allclose(logit, expected, atol=1e-4)


def test_ranges_of_users_are_cut_from_the_same_truth() -> None:
    truth = simulate_ratings(n_users=500, n_items=20_000, seed=2).truth
    assert truth.design.users_per_block == 200
    whole, part = truth.block(150, 450), truth.block(190, 210)
    np.testing.assert_array_equal(whole[0][40:60], part[0])
    np.testing.assert_array_equal(whole[1][40:60], part[1])


def test_tastes_have_the_stated_rank_and_shares() -> None:
    simulation = simulate_ratings(n_users=3000, n_items=1000, seed=5)
    truth, design = simulation.truth, simulation.truth.design
    assert np.linalg.matrix_rank(truth.user_factors @ design.item_factors.T) == 8
    assert truth.user_offset.var() == pytest.approx(0.15, rel=0.15)
    assert design.item_offset.var() == pytest.approx(0.10, rel=0.2)
    assert (truth.user_factors[:400] @ design.item_factors.T).var() == pytest.approx(0.405, rel=0.2)
    assert truth.user_activity.std() == pytest.approx(0.8, rel=0.05)
    assert design.item_popularity.std() == pytest.approx(0.8, rel=0.08)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "at-least-10"])
def test_expected_observed_marginal_is_met(name: str) -> None:
    simulation = simulate_ratings(name, n_users=4000, seed=4)
    np.testing.assert_allclose(shares(simulation.train), simulation.truth.design.observed_marginal(), atol=0.012)


def test_presets_differ_as_they_say() -> None:
    random = np.asarray(R3_RANDOM_MARGINAL)
    ratio = {name: make_design(find_preset(name), 100, 1000, 0, None).observed_marginal() / random for name in PRESETS}
    np.testing.assert_allclose(ratio["popularity"], 1.0, atol=0.02)
    assert (np.diff(ratio["monotone"]) > 0).all()
    assert np.argmin(ratio["extremes"]) == 2
    assert np.argmax(ratio["self-censoring"]) == 2


def test_at_least_10_redraws_users_until_all_have_ten() -> None:
    simulation = simulate_ratings("at-least-10", n_users=600, seed=6)
    counts = np.diff(simulation.train.indptr)
    assert counts.min() >= 10
    ratings, _ = simulation.truth.block(0, 600)
    np.testing.assert_array_equal(ratings[simulation.train.rows, simulation.train.items], simulation.train.ratings)


def test_survey_is_uniform_over_items_and_split_without_overlap(r3: Simulation) -> None:
    survey = np.concatenate([r3.test.cells, r3.labels.cells])
    assert len(np.unique(survey)) == len(survey) == 1400 * 10
    assert r3.labels.n_ratings == 700
    per_user = np.bincount(np.concatenate([r3.test.rows, r3.labels.rows]), minlength=4000)
    assert set(per_user) == {0, 10}
    per_item = np.bincount(np.concatenate([r3.test.items, r3.labels.items]), minlength=1000)
    chi_squared = (np.square(per_item - 14.0) / 14.0).sum()
    assert abs(chi_squared - 999) < 4 * np.sqrt(2 * 999)
    assert 0 < np.isin(r3.test.cells, r3.train.cells).mean() < 0.05


def test_everybody_is_in_the_vocabulary(r3: Simulation) -> None:
    assert r3.train.users is r3.test.users
    assert r3.train.n_users == 4000
    assert (np.diff(r3.train.indptr) == 0).any()


def test_same_seed_same_data_and_other_seed_other_data() -> None:
    first, second, other = (simulate_ratings(n_users=100, n_items=100, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train.cells, second.train.cells)
    np.testing.assert_array_equal(first.test.ratings, second.test.ratings)
    assert not np.array_equal(first.train.cells, other.train.cells)


@pytest.mark.parametrize(("n_items", "expected"), [(200, 4.0), (1000, 20.0), (5000, 20.0)])
def test_mean_number_of_ratings_scales_with_small_catalogues_only(n_items: int, expected: float) -> None:
    assert make_design(find_preset("r3-like"), 100, n_items, 0, None).ratings_per_user == expected


def test_number_of_ratings_can_be_given() -> None:
    simulation = simulate_ratings(n_users=2000, n_items=100, ratings_per_user=10, seed=1)
    assert simulation.train.n_ratings / 2000 == pytest.approx(10, rel=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "yahoo"}, "preset must be one of r3-like"),
        ({"n_users": 10}, "at least 50 users and 20 items; found 10"),
        ({"n_items": 5}, "at least 50 users and 20 items"),
        ({"n_items": 100, "ratings_per_user": 60}, "at most half of the 100 items; found 60"),
        ({"n_items": 100, "ratings_per_user": 0}, "above 0"),
        ({"n_items": 100, "ratings_per_user": 30}, "a level that a user gives only"),
        ({"preset": "at-least-10", "n_items": 100}, "found 2"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_ratings(**arguments)


def test_truth_refuses_ids_and_sizes_that_it_does_not_have() -> None:
    truth = simulate_ratings(n_users=100, n_items=50, seed=0).truth
    with pytest.raises(DataError, match="user ids must be from 1 to 100; found 0"):
        truth.expected_rating(np.array([0]), np.array([1]))
    with pytest.raises(DataError, match="item ids must be from 1 to 50"):
        truth.expected_rating(np.array([1]), np.array([51]))
    with pytest.raises(DataError, match="range within"):
        truth.block(90, 101)
    assert truth.complete_ratings().shape == (100, 50)
    large = replace(truth, design=replace(truth.design, n_users=1_000_001))
    with pytest.raises(DataError, match="at most 50,000,000 cells; found 50,000,050"):
        large.complete_ratings()


def test_files_hold_the_simulation(tmp_path: Path) -> None:
    simulation = simulate_ratings(n_users=100, n_items=60, seed=7)
    paths = write_simulation(simulation, tmp_path / "out")
    assert [path.name for path in paths] == ["train.csv", "test.csv", "mcar_labels.csv", "truth.npz"]
    lines = paths[0].read_text().splitlines()
    assert lines[0] == "user,item,rating"
    assert len(lines) == simulation.train.n_ratings + 1
    first = [int(part) for part in lines[1].split(",")]
    log = simulation.train
    assert first == [log.rows[0] + 1, log.items[0] + 1, int(log.ratings[0])]
    with np.load(paths[3], allow_pickle=False) as truth:
        assert str(truth["preset"]) == "r3-like"
        assert int(truth["seed"]) == 7
        np.testing.assert_array_equal(truth["ratings"], simulation.truth.complete_ratings())
        assert truth["propensity"].dtype == np.float32
        np.testing.assert_allclose(truth["observed_marginal"], R3_SELECTED_MARGINAL, atol=1e-6)
        np.testing.assert_allclose(truth["selection"], simulation.truth.selection)
    assert not list((tmp_path / "out").glob(".*"))
