"""Training side by side: each model ends where it would have ended alone; the encoder can be trained by itself."""

import numpy as np
import pytest
import torch
from closed_form import linear_model, normal_of, rows_of
from scipy import stats

from mnar_recsys.config.tables import TableSettings
from mnar_recsys.errors import DivergedError
from mnar_recsys.tables import MNARImputer
from mnar_recsys.tables.build import build_table_vae
from mnar_recsys.tables.complete_data import complete_log_likelihood, mask_accuracy
from mnar_recsys.tables.imputation import RowPosterior
from mnar_recsys.tables.stacked import train
from mnar_recsys.tables.standardise import Units


def masked(n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(n, 1)) @ np.array([[1.0, 0.8, -0.6]]) + 0.4 * rng.normal(size=(n, 3))
    values[:, 0] = np.where(values[:, 0] > 0, np.nan, values[:, 0])
    return values


@pytest.mark.parametrize("estimator", ["marginal", "sampled"])
def test_stacked_equals_one_by_one(estimator: str) -> None:
    rows = rows_of(masked())
    settings = TableSettings(hidden=(8,), samples=4, batch_size=16, max_iter=70, estimator=estimator)
    units = Units(np.zeros(3), np.ones(3))

    def models() -> list:
        return [build_table_vae(settings, torch.full((3,), 0.6), units, None, seed) for seed in (3, 4)]

    together = models()
    train(together, rows, settings, [3, 4])
    for seed, model, alone in zip((3, 4), together, models(), strict=True):
        train([alone], rows, settings, [seed])
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_the_encoder_alone_moves_and_the_bound_rises() -> None:
    model = linear_model(missing="ignorable")
    rng = np.random.default_rng(0)
    rows = rows_of(rng.multivariate_normal(*normal_of(model), size=200))
    held = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.")}

    def bound() -> (
        float
    ):  # of few draws a row, so that it tells encoders apart, many times over, so that noise does not
        once = (
            RowPosterior(model, rows, draws=10, seed=seed, reach=(-3, 3)).bounds(of_mask=False) for seed in range(9)
        )
        return float(np.mean([bounds.mean() for bounds in once]))

    before = bound()
    settings = TableSettings(samples=5, batch_size=50, max_iter=400)
    train([model.train()], rows, settings, [0], only=("encoder.", "posterior."))
    after = bound()
    for name, value in held.items():
        assert torch.equal(model.state_dict()[name], value)
    exact = stats.multivariate_normal(*normal_of(model)).logpdf(rows.values.numpy()).mean()
    assert before < after <= exact + 0.02
    assert after == pytest.approx(exact, abs=0.05)


def test_likelihood_of_complete_rows_is_that_of_the_fitted_gaussian() -> None:
    imputer = MNARImputer(decoder="linear", latent_size=1, max_iter=400, n_draws=2_000, random_state=0).fit(masked(200))
    complete = np.random.default_rng(5).normal(size=(30, 3))
    found = complete_log_likelihood(imputer, complete)
    mean, covariance = imputer.linear_moments()[0]
    assert found[0].mean() == pytest.approx(
        stats.multivariate_normal(mean, covariance).logpdf(complete).mean(), abs=0.05
    )


def test_accuracy_of_the_mask_counts_every_cell() -> None:
    imputer = MNARImputer(max_iter=2, hidden=(4,), random_state=0).fit(masked())
    for model in imputer.models:
        with torch.no_grad():  # observed below 0 in the first feature, always in the others
            model.missing.slope.raw.copy_(torch.tensor([-9.0, 0.0, 0.0]))
            model.missing.item_bias.copy_(torch.tensor([0.0, 9.0, 9.0]))
    units = imputer._units
    complete = units.to_table(np.array([[-1.0, 0.0, 0.0], [1.0, 2.0, -2.0]]))
    observed = np.array([[True, True, True], [True, True, True]])
    assert mask_accuracy(imputer, complete, observed)[0] == pytest.approx(5 / 6)


def test_a_bound_that_is_not_finite_stops_training() -> None:
    rows = rows_of(masked())
    settings = TableSettings(max_iter=1, hidden=(4,))
    model = build_table_vae(settings, torch.full((3,), 0.6), Units(np.zeros(3), np.ones(3)), None, 0)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match="step 1"):
        train([model], rows, settings, [0])
