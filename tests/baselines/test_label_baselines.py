"""Two plain uses of labels: a line by hand and against numpy, and a factorization blind to selected ratings."""

import numpy as np
import pytest

from baselines.alternating_ridge import Ratings, fit_factors
from baselines.label_baselines import FACTOR_GRID, OFFSET_GRID, MfLabels, MfRecalibrated, calibrate
from baselines.mf import Mf
from mnar_recsys.data import RatingLog, Split, split_ratings
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.errors import ConfigError, DataError


def test_a_line_through_20_labels_is_found_and_19_only_shift() -> None:
    predicted = np.linspace(2.0, 4.0, 20)
    np.testing.assert_allclose(calibrate(predicted, 0.5 + 0.25 * predicted), (0.5, 0.25))
    few = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(calibrate(few, np.array([1.0, 1.0, 1.0])), (-1.0, 1.0))
    intercept, slope = calibrate(predicted[:19], 0.5 + 0.25 * predicted[:19])
    assert slope == 1.0
    assert intercept == pytest.approx(0.5 - 0.75 * predicted[:19].mean())


def test_the_line_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(3.0, 0.8, 50)
    truth = 1.0 + 0.3 * predicted + rng.normal(0.0, 1.0, 50)
    slope, intercept = np.polyfit(predicted, truth, 1)
    np.testing.assert_allclose(calibrate(predicted, truth), (intercept, slope))


def test_equal_predictions_are_shifted() -> None:
    assert calibrate(np.full(30, 3.0), np.repeat([1.0, 2.0], 15)) == pytest.approx((-1.5, 1.0))


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate_ratings("r3-like", n_users=400, n_items=150, ratings_per_user=12, seed=0)


def split_of(simulation: Simulation) -> tuple[Split, RatingLog]:
    """The log with a tenth held out and 30 % of the survey as labels; and the rest of the survey."""
    test, labels = split_ratings(simulation.test, 0.3, seed=0)
    return Split(mnar_train=simulation.train, mcar_labels=labels).hold_out(0.1, seed=0), test


def errors_on(test: RatingLog, model: MfRecalibrated | Mf | MfLabels) -> np.ndarray:
    return model.predict(test.users.take(test.rows), test.catalogue.take(test.items)) - test.ratings


def test_recalibration_removes_the_bias_of_selection(simulation: Simulation) -> None:
    split, test = split_of(simulation)
    plain, mapped = Mf(size=4).fit(split, seed=0), MfRecalibrated(size=4).fit(split, seed=0)
    assert errors_on(test, plain).mean() > 0.5
    assert abs(errors_on(test, mapped).mean()) < 0.1
    assert np.square(errors_on(test, mapped)).mean() < 0.7 * np.square(errors_on(test, plain)).mean()
    # The same factors underneath, so tuning is that of the plain method.
    assert mapped.validation_loss(split) == plain.validation_loss(split)
    inner = mapped.intercept + mapped.slope * plain._predict(test.rows.astype(int), test.items.astype(int))
    np.testing.assert_array_equal(mapped._predict(test.rows.astype(int), test.items.astype(int)), inner)


def test_selected_ratings_do_not_matter_to_mf_labels(simulation: Simulation) -> None:
    split, test = split_of(simulation)
    model = MfLabels().fit(split, seed=0)
    fewer = split.mnar_train.select_ratings(np.arange(split.mnar_train.n_ratings) % 2 == 0)
    other = MfLabels().fit(Split(mnar_train=fewer, mcar_labels=split.mcar_labels), seed=0)
    np.testing.assert_array_equal(errors_on(test, model), errors_on(test, other))


def test_mf_labels_keeps_what_its_labels_show_and_shrinks_the_rest() -> None:
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.permutation(2000)[:600], 20)
    worth = np.linspace(-1.5, 1.5, 20)
    ids = {"scale": "-10,16,real", "user_ids": np.arange(100), "catalogue": np.arange(20)}
    noise = rng.normal(0.0, 0.5, 600)
    telling = RatingLog.from_arrays(users, items, 3.0 + worth[items] + noise, **ids)
    silent = RatingLog.from_arrays(users, items, 3.0 + noise, **ids)
    found = MfLabels().fit(Split(mnar_train=silent, mcar_labels=telling), seed=0)
    everyone = np.arange(20)
    np.testing.assert_allclose(found.predict(np.full(20, 999), everyone), 3.0 + worth, atol=0.35)
    nothing = MfLabels().fit(Split(mnar_train=telling, mcar_labels=silent), seed=0)
    np.testing.assert_allclose(nothing.predict(np.full(20, 999), everyone), 3.0, atol=0.1)
    assert nothing.chosen.offsets == max(OFFSET_GRID)
    assert np.abs(nothing.factors.user).max() < 1e-3


def test_the_shrinkage_is_the_best_of_the_grid_by_cross_validation(simulation: Simulation) -> None:
    split, _ = split_of(simulation)
    model = MfLabels(size=2).fit(split, seed=0)
    labels = split.mcar_labels
    assert labels is not None
    assert model.chosen.factors / labels.values.std() == pytest.approx(
        min(FACTOR_GRID, key=lambda ratio: abs(ratio * labels.values.std() - model.chosen.factors))
    )
    assert model.chosen.offsets in OFFSET_GRID
    assert model.validation_loss(split) == model.error
    # An error on labels left out: above that on the labels fitted to, and not above that of the mean.
    fitted = fit_factors(Ratings.of_log(labels), 2, model.chosen, seed=0)
    inside = np.square(fitted.predict(labels.rows, labels.items) - labels.values).mean()
    assert inside < model.error < 1.02 * labels.values.var()


@pytest.mark.parametrize("method", [MfRecalibrated, MfLabels])
def test_labels_are_needed(simulation: Simulation, method: type[MfRecalibrated | MfLabels]) -> None:
    with pytest.raises(DataError, match=r"mf_\w+ needs randomly collected ratings"):
        method().fit(Split(mnar_train=simulation.train), seed=0)


def test_four_labels_are_too_few_to_cross_validate(simulation: Simulation) -> None:
    few = simulation.labels.select_ratings(np.arange(simulation.labels.n_ratings) < 4)
    with pytest.raises(DataError, match="at least 5 ratings to choose a shrinkage; found 4"):
        MfLabels().fit(Split(mnar_train=simulation.train, mcar_labels=few), seed=0)


def test_size_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="size must be a number above 0; found 0"):
        MfLabels(size=0)
