"""The evaluation table, on a small log with known answers."""

import numpy as np
import pandas as pd
import pytest

from evaluation.evaluate import COLUMNS, evaluate
from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import DataError


@pytest.fixture
def log() -> RatingLog:
    return RatingLog.from_arrays([1, 1, 2, 3], [1, 2, 1, 2], [1.0, 3.0, 2.0, 3.0], scale="1,3")


def value(table: pd.DataFrame, metric: str, cells: str = "all") -> float:
    rows = table[(table["metric"] == metric) & (table["cells"] == cells)]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_point_metrics_by_hand_on_unseen_and_all_cells(log: RatingLog) -> None:
    unseen = np.array([False, True, True, True])
    table = evaluate(log, [3.0, 3.0, 3.0, 2.0], unseen=unseen)
    assert tuple(table.columns) == COLUMNS
    assert value(table, "mse") == pytest.approx((4 + 0 + 1 + 1) / 4)
    assert value(table, "mse", "unseen") == pytest.approx(2 / 3)
    assert value(table, "rmse", "unseen") == pytest.approx(np.sqrt(2 / 3))
    assert value(table, "mae") == pytest.approx(1.0)
    assert value(table, "bias") == pytest.approx((2 + 0 + 1 - 1) / 4)
    assert table["cells"].unique().tolist() == ["unseen", "all"]
    assert table.groupby("cells")["n"].first().to_dict() == {"all": 4, "unseen": 3}


def test_level_metrics_by_hand(log: RatingLog) -> None:
    table = np.array([[0.8, 0.2, 0.0], [0.0, 0.5, 0.5], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]])
    found = evaluate(log, [1.0] * 4, quantiles=([1, 2, 2, 1], [2, 3, 2, 2]), level_probabilities=table)
    assert value(found, "log_likelihood") == pytest.approx(np.log([0.8, 0.5, 0.6, 0.4]).mean())
    assert value(found, "coverage_90") == pytest.approx(3 / 4)
    assert value(found, "coverage_90_model") == pytest.approx((1.0 + 1.0 + 0.6 + 0.6) / 4)
    assert value(found, "coverage_90_gap") == pytest.approx(0.75 - 0.8)
    # Predicted marginal .325, .4, .275; true .25, .25, .5.
    assert value(found, "marginal_tv") == pytest.approx(0.225)
    assert value(found, "marginal_wasserstein") == pytest.approx(0.075 + 0.225)
    assert found.loc[found["metric"].str.startswith("marginal"), ["lower", "upper"]].isna().all(axis=None)


def test_metrics_appear_with_what_was_given(log: RatingLog) -> None:
    assert evaluate(log, [1.0] * 4)["metric"].tolist() == ["mse", "rmse", "mae", "bias"]
    quantiles = ([1.0] * 4, [3.0] * 4)
    assert "coverage_90" in evaluate(log, [1.0] * 4, quantiles=quantiles)["metric"].tolist()


def test_a_level_that_was_ruled_out_shows_as_minus_infinity(log: RatingLog) -> None:
    table = evaluate(log, [1.0] * 4, level_probabilities=np.tile([0.0, 0.5, 0.5], (4, 1)))
    assert value(table, "log_likelihood") == -np.inf
    assert value(table, "mse") == pytest.approx((0 + 4 + 1 + 4) / 4)


def test_no_unseen_cell_leaves_rows_for_all_only(log: RatingLog) -> None:
    table = evaluate(log, [1.0] * 4, unseen=np.zeros(4, dtype=bool))
    assert table["cells"].unique().tolist() == ["all"]


def test_what_does_not_fit_is_refused(log: RatingLog) -> None:
    with pytest.raises(DataError, match="1 of 4 are not finite"):
        evaluate(log, [1.0, np.nan, 1.0, 1.0])
    with pytest.raises(DataError, match="one boolean per test cell"):
        evaluate(log, [1.0] * 4, unseen=np.array([1, 0, 1, 0]))
    with pytest.raises(DataError, match=r"= \(4, 3\); found \(4, 2\)"):
        evaluate(log, [1.0] * 4, level_probabilities=np.full((4, 2), 0.5))
    real = RatingLog.from_arrays([1, 2], [1, 2], [0.1, 0.9], scale="0,1,real")
    with pytest.raises(DataError, match="need a test log with rating levels"):
        evaluate(real, [0.5, 0.5], level_probabilities=np.full((2, 2), 0.5))


def test_the_truth_is_calibrated_and_best() -> None:
    simulation = simulate_ratings(n_users=1500, seed=1)
    test, truth = simulation.test, simulation.truth
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    probabilities = truth.level_probabilities(users, items)
    mean = truth.expected_rating(users, items)
    below = np.cumsum(probabilities, axis=1)
    quantiles = tuple(1.0 + (below < share).sum(axis=1) for share in (0.05, 0.95))
    table = evaluate(test, mean, quantiles=quantiles, level_probabilities=probabilities)
    gap = table.set_index("metric").loc["coverage_90_gap"]
    assert gap["lower"] - 0.005 <= 0.0 <= gap["upper"] + 0.005
    assert value(table, "pit_coverage_90") == pytest.approx(0.9, abs=0.02)
    assert value(table, "marginal_tv") < 0.02
    assert value(table, "bias") == pytest.approx(0.0, abs=0.04)
    assert value(table, "mse") < value(evaluate(test, np.full(len(mean), test.ratings.mean())), "mse") / 2
