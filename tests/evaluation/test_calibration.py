"""Calibration measures: by hand, and under a model that is right."""

import numpy as np
import pytest
from scipy import stats

from evaluation import calibration
from mnar_recsys.errors import DataError

LEVELS = np.arange(1.0, 6.0)


def test_covered_includes_both_ends() -> None:
    found = calibration.covered([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 3.5, 3.0], [2.0, 2.0, 4.0, 4.0])
    assert found.tolist() == [1.0, 1.0, 0.0, 1.0]


def test_swapped_ends_and_missing_intervals_are_refused() -> None:
    with pytest.raises(DataError, match=r"must not exceed upper ones; found 3.0 and 2.0 at 1"):
        calibration.covered([1.0, 2.0], [1.0, 3.0], [2.0, 2.0])
    with pytest.raises(DataError, match="upper quantiles must score every test pair; 1 of 2"):
        calibration.covered([1.0, 2.0], [1.0, 1.0], [2.0, np.nan])


def test_interval_probability_by_hand() -> None:
    table = [[0.1, 0.2, 0.3, 0.3, 0.1], [0.5, 0.5, 0.0, 0.0, 0.0]]
    found = calibration.interval_probability(LEVELS, table, [2.0, 1.0], [4.0, 1.0])
    np.testing.assert_allclose(found, [0.8, 0.5])


def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(5) * 0.7, size=n)
    index = (rng.random(n)[:, None] > np.cumsum(table, axis=1)[:, :4]).sum(axis=1)
    return index, table


def test_pit_is_uniform_under_the_true_model() -> None:
    index, table = draw(20_000)
    pit = calibration.randomised_pit(index, table, seed=1)
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    assert calibration.pit_covered(pit).mean() == pytest.approx(0.9, abs=3 * 0.3 / np.sqrt(20_000))


def test_pit_of_an_overconfident_model_heaps_at_the_ends() -> None:
    index, table = draw(20_000)
    sharp = np.square(table) / np.square(table).sum(axis=1, keepdims=True)
    pit = calibration.randomised_pit(index, sharp, seed=1)
    assert calibration.pit_covered(pit).mean() < 0.85


def test_pit_lies_in_the_true_level_s_part() -> None:
    pit = calibration.randomised_pit(np.array([0, 1, 2]), np.tile([0.2, 0.5, 0.3], (3, 1)))
    assert 0.0 <= pit[0] <= 0.2 <= pit[1] <= 0.7 <= pit[2] <= 1.0


def test_level_frequencies_by_hand() -> None:
    table = np.array([[0.5, 0.5, 0.0], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9], [0.2, 0.8, 0.0]])
    found = calibration.level_frequencies(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 2, 1]), table)
    np.testing.assert_allclose(found["expected"], [0.2, 0.5, 0.3])
    np.testing.assert_allclose(found["observed"], [0.25, 0.5, 0.25])
    assert found["n"].tolist() == [1, 2, 1]


def test_distances_by_hand() -> None:
    first, second = [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]
    assert calibration.total_variation(first, second) == pytest.approx(0.5)
    assert calibration.wasserstein(np.array([1.0, 2.0, 4.0]), first, second) == pytest.approx(1.0)
    assert calibration.total_variation(first, first) == 0.0


def test_wasserstein_agrees_with_scipy() -> None:
    rng = np.random.default_rng(2)
    levels = np.array([0.5, 1.0, 2.5, 3.0])
    for _ in range(5):
        first, second = rng.dirichlet(np.ones(4), size=2)
        expected = stats.wasserstein_distance(levels, levels, first, second)
        assert calibration.wasserstein(levels, first, second) == pytest.approx(expected)
