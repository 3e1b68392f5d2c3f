"""Per-pair contributions and the metrics that average them, by hand."""

import numpy as np
import pytest

from evaluation import contributions, rating
from mnar_recsys.errors import DataError

TRUTH = np.array([1.0, 2.0, 5.0, 4.0])
PREDICTION = np.array([2.0, 2.0, 3.0, 4.5])
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])


def test_contributions_by_hand() -> None:
    np.testing.assert_allclose(contributions.squared_error(TRUTH, PREDICTION), [1, 0, 4, 0.25])
    np.testing.assert_allclose(contributions.absolute_error(TRUTH, PREDICTION), [1, 0, 2, 0.5])
    np.testing.assert_allclose(contributions.signed_error(TRUTH, PREDICTION), [1, 0, -2, 0.5])


def test_metrics_by_hand() -> None:
    assert rating.mse(TRUTH, PREDICTION) == pytest.approx(5.25 / 4)
    assert rating.rmse(TRUTH, PREDICTION) == pytest.approx(np.sqrt(5.25 / 4))
    assert rating.mae(TRUTH, PREDICTION) == pytest.approx(3.5 / 4)
    assert rating.bias(TRUTH, PREDICTION) == pytest.approx(-0.5 / 4)
    assert rating.bias([1.0], [3.0]) == 2.0  # too high is positive


def test_log_likelihood_by_hand() -> None:
    found = contributions.log_likelihood(np.array([2, 1]), PROBABILITIES)
    np.testing.assert_allclose(found, np.log([0.25, 0.8]))
    assert rating.log_likelihood(np.array([2, 1]), PROBABILITIES) == pytest.approx(np.log(0.2) / 2)


def test_a_level_ruled_out_costs_minus_infinity_without_a_warning() -> None:
    found = contributions.log_likelihood(np.array([0]), np.array([[0.0, 1.0]]))
    assert found.tolist() == [-np.inf]


def test_unscored_pairs_are_refused_with_their_count_and_never_dropped() -> None:
    with pytest.raises(DataError, match="2 of 4 are not finite, the first at position 1"):
        rating.mse(TRUTH, [2.0, np.nan, np.inf, 4.0])
    with pytest.raises(DataError, match="1 of 2 are not finite"):
        contributions.log_likelihood(np.array([0, 1]), [[0.5, 0.5], [np.nan, 1.0]])


def test_lengths_and_truth_are_checked() -> None:
    with pytest.raises(DataError, match="equally long; found truth 4, prediction 3"):
        rating.mae(TRUTH, PREDICTION[:3])
    with pytest.raises(DataError, match="true ratings must be finite"):
        rating.mse([np.nan], [1.0])


@pytest.mark.parametrize("row", [[0.5, 0.6, 0.1], [-0.1, 0.6, 0.5], [0.2, 0.2, 0.2]])
def test_what_is_no_distribution_is_refused(row: list[float]) -> None:
    with pytest.raises(DataError, match=r"sum to 1; found .* at position 1"):
        contributions.check_probabilities([[0.2, 0.3, 0.5], row])


def test_probabilities_need_two_axes() -> None:
    with pytest.raises(DataError, match=r"shape \(pairs, levels\); found \(2,\)"):
        contributions.check_probabilities([0.5, 0.5])


def test_rounding_of_a_float32_model_is_evened_out() -> None:
    row = np.full((1, 3), 1 / 3, dtype=np.float32) * np.float32(1.0003)
    assert contributions.check_probabilities(row).sum() == pytest.approx(1.0, abs=1e-12)
