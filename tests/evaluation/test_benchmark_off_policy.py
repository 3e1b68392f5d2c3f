"""Estimates for many methods without a test: right where propensities are, and the weights of what was held out."""

from pathlib import Path

import numpy as np
import pytest

from baselines.base import Baseline
from baselines.bias import BiasBaseline
from baselines.constant import ConstantTrain
from evaluation.benchmark import Entry
from evaluation.benchmark_off_policy import HELD_OUT, estimate_errors, weigh_held_out
from evaluation.propensity_table import fit_propensities, propensity_summary
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.given import GivenPropensity
from mnar_recsys.propensity.registry import PROPENSITIES
from mnar_recsys.propensity.uniform import Uniform


class Twos(Baseline):
    """Predicts 2 for every cell."""

    def _fit(self, split: Split, seed: int) -> None:
        """Nothing to fit."""

    def _predict(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return np.full(len(rows), 2.0)


@pytest.fixture(scope="module")
def selected() -> tuple[Split, np.ndarray]:
    """A log in which a rating r of 1..5 is given with probability .04 r, and all ratings (N, P)."""
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 6, size=(400, 100)).astype(float)
    users, items = np.nonzero(rng.random(ratings.shape) < 0.04 * ratings)
    log = RatingLog.from_arrays(users, items, ratings[users, items])
    assert (log.n_users, log.n_items) == ratings.shape
    return Split(mnar_train=log), ratings


def test_estimates_are_the_error_on_all_cells_where_propensities_are_right(
    selected: tuple[Split, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, ratings = selected

    def truth() -> GivenPropensity:
        # Of being rated and left in the nine tenths that the propensities are fitted to.
        return GivenPropensity(lambda *cells: (1 - HELD_OUT) * 0.04 * cells[2], depends_on_rating=True)

    monkeypatch.setattr("evaluation.benchmark_off_policy.find_propensity", lambda _: truth)
    found = estimate_errors([Entry("twos", Twos)], split, tmp_path, "truth")
    (row,) = found.rows
    actual = np.square(ratings - 2.0).mean()
    assert row.naive > actual + 0.5  # people rate what they like
    for estimate in (row.ips, row.snips, row.doubly_robust):
        assert estimate.interval.low < actual < estimate.interval.high
        assert estimate.interval.high - estimate.interval.low < 1.0
    assert row.ips.cells_represented == pytest.approx(1.0, abs=0.1)


def test_held_out_ratings_stand_for_all_cells(selected: tuple[Split, np.ndarray]) -> None:
    held = selected[0].hold_out(HELD_OUT, seed=0)
    fitted = Uniform().fit(held, seed=0)
    weighed = weigh_held_out(held, fitted)
    # Equal propensities: the weights sum to the number of cells.
    assert weighed.weights.sum() == pytest.approx(400 * 100, rel=0.001)


def test_an_order_like_that_of_the_test_has_a_correlation_of_one(
    selected: tuple[Split, np.ndarray], tmp_path: Path
) -> None:
    entries = [Entry("twos", Twos), Entry("bias", BiasBaseline), Entry("constant_train", ConstantTrain)]
    found = estimate_errors(entries, selected[0], tmp_path, "uniform")
    errors = {row.model: row.snips.interval.value for row in found.rows}
    assert found.rank_correlations(errors)["SNIPS"] == pytest.approx(1.0)
    ordered = dict(sorted(errors.items(), key=lambda item: item[1]))
    assert found.table(ordered)["model"].tolist() == list(ordered)
    with pytest.raises(ConfigError, match="propensity must be one of"):
        estimate_errors(entries, selected[0], tmp_path, "nonsense")


def test_every_propensity_model_is_in_the_table_or_left_out_with_its_reason() -> None:
    data = simulate_ratings("popularity", n_users=80, n_items=30, seed=0, ratings_per_user=8)
    fits, left_out = fit_propensities(Split(mnar_train=data.train, mcar_labels=data.labels, mcar_test=data.test))
    assert set(fits) | set(left_out) == set(PROPENSITIES)
    assert "needs user or item features" in left_out["logistic"]
    table = propensity_summary(fits).set_index("propensities")
    # Equal propensities balance neither margin; those of users and items balance both.
    assert fits["user_item_popularity"].worst_balance < 0.5 * fits["uniform"].worst_balance
    assert table.loc["uniform", "effective ratings"] == f"{data.train.n_ratings:,}"
    assert table.loc["naive_bayes", "calibration error"] == "-"
