"""The constraint, that no nearer weights meet it (by a general optimizer), and double robustness."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from weighted_cases import error_on_test, selected, single, small_cells

from baselines.doubly_robust import Errors
from baselines.mf_ips import MfIps
from baselines.stable_dr import MAX_TILT, StableDr, balanced_weights


def test_the_weighted_mean_of_the_imputed_errors_is_that_of_all_cells() -> None:
    cells = small_cells(200)
    for mask in map(torch.from_numpy, cells.masks(20)):
        imputed, chance = torch.tensor(cells.wrong), torch.tensor(cells.propensity)[mask]
        mean = imputed.mean()
        weights = balanced_weights(chance, imputed[mask], mean)
        assert float(weights.min()) > 0.0
        assert float(weights.sum()) == pytest.approx(1.0)
        # sum((e-hat - mean) / p-hat) = 0 with 1 / p-hat in proportion to the weights.
        assert float(weights @ (imputed[mask] - mean)) == pytest.approx(0.0, abs=1e-7)


def test_given_propensities_that_balance_are_kept() -> None:
    chance = torch.tensor([0.5, 0.25, 0.25])
    weights = balanced_weights(chance, torch.tensor([3.0, 1.0, 2.0]), torch.tensor(1.8))
    torch.testing.assert_close(weights, torch.tensor([0.2, 0.4, 0.4]))


def test_no_weights_nearer_to_the_given_ones_balance() -> None:
    rng = np.random.default_rng(0)
    chance, imputed, mean = rng.uniform(0.1, 0.9, 6), rng.gamma(1.0, size=6), 1.0
    given = (1.0 / chance) / (1.0 / chance).sum()
    constraints = (
        {"type": "eq", "fun": lambda w: w.sum() - 1.0},
        {"type": "eq", "fun": lambda w: w @ imputed - mean},
    )
    nearest = minimize(
        lambda w: (w * np.log(w / given)).sum(), given, bounds=[(1e-9, 1.0)] * 6, constraints=constraints, tol=1e-12
    ).x
    found = balanced_weights(torch.tensor(chance), torch.tensor(imputed), torch.tensor(mean))
    np.testing.assert_allclose(found, nearest, atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 9.0])
def test_weights_stay_tame_where_none_can_balance(mean: float) -> None:
    imputed = torch.linspace(1.0, 4.0, 7, dtype=torch.float64)
    weights = balanced_weights(torch.full((7,), 0.2), imputed, torch.tensor(mean))
    assert torch.isfinite(weights).all()
    spread = float(imputed[-1] - imputed[0]) / float((imputed - mean).square().mean().sqrt())
    assert float(weights.max() / weights.min()) <= np.exp(MAX_TILT * spread) * (1 + 1e-9)
    # All the weight it may move goes towards the mean.
    assert bool(weights[0] > weights[-1]) == (mean == 0.0)


def test_equal_imputed_errors_leave_the_weights_alone() -> None:
    chance = torch.tensor([0.5, 0.25])
    torch.testing.assert_close(
        balanced_weights(chance, torch.ones(2), torch.tensor(1.0)), torch.tensor([1.0 / 3.0, 2.0 / 3.0])
    )


def test_exact_with_right_imputed_errors_and_wrong_propensities() -> None:
    cells = small_cells(200)
    errors = torch.tensor(cells.errors)
    for mask in map(torch.from_numpy, cells.masks(20)):
        step = Errors(errors[mask], errors[mask], torch.full((int(mask.sum()),), 0.3), errors, 200)
        assert float(StableDr(propensity="uniform").estimate(step)) == pytest.approx(cells.errors.mean(), abs=1e-6)


def test_nearly_unbiased_with_right_propensities_and_wrong_imputed_errors() -> None:
    cells = small_cells(3000)
    errors, wrong, chance = single(cells.errors), single(cells.wrong), single(cells.propensity)
    found = []
    for mask in map(torch.from_numpy, cells.masks(60)):
        step = Errors(errors[mask], wrong[mask], chance[mask], wrong, 3000)
        found.append(float(StableDr(propensity="uniform").estimate(step)))
    assert np.mean(found) == pytest.approx(cells.errors.mean(), rel=0.01)


def test_the_estimate_never_leaves_the_range_of_the_errors() -> None:
    step = Errors(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 3.0]), torch.tensor([1e-6, 0.9]), torch.ones(5), 10)
    assert 1.0 <= float(StableDr(propensity="uniform").estimate(step)) <= 2.0


@pytest.mark.slow
def test_true_propensities_beat_none_on_random_ratings() -> None:
    simulation, true = selected("monotone")
    weighted, naive = StableDr(propensity=true), MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(weighted, simulation) < error_on_test(naive, simulation) - 0.15
