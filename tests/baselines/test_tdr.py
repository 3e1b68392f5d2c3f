"""The targeting equation, and what follows: exact with right imputed errors, unbiased with right propensities."""

import numpy as np
import pytest
import torch
from weighted_cases import error_on_test, selected, single, small_cells

from baselines.doubly_robust import Errors, MfDrJl
from baselines.mf_ips import MfIps
from baselines.tdr import Tdr, targeting_step


def one_mask() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """True errors, wrong imputed errors and propensities of all cells, and which are rated."""
    cells = small_cells()
    mask = torch.from_numpy(cells.masks(1)[0])
    return single(cells.errors), single(cells.wrong), single(cells.propensity), mask


def test_the_targeting_step_by_hand() -> None:
    # (2 / .5 - 1 / .25) / (1 / .5 + 1 / .25) = 0, and with a difference of 1 everywhere it is 1.
    chance = torch.tensor([0.5, 0.25])
    assert float(targeting_step(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0]), chance)) == pytest.approx(0.0)
    assert float(targeting_step(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), chance)) == pytest.approx(1.0)


def test_the_correction_vanishes_after_the_step() -> None:
    errors, wrong, chance, mask = one_mask()
    eta = targeting_step(errors[mask], wrong[mask], chance[mask])
    assert abs(float(eta)) > 0.05
    left = ((errors - wrong - eta)[mask] / chance[mask]).sum()
    assert abs(float(left)) < 1e-4


def test_the_estimate_is_the_doubly_robust_one_of_the_targeted_errors() -> None:
    errors, wrong, chance, mask = one_mask()
    targeted = wrong + targeting_step(errors[mask], wrong[mask], chance[mask])
    found = Tdr(propensity="uniform").estimate(Errors(errors[mask], wrong[mask], chance[mask], wrong, 30))
    plain = MfDrJl(propensity="uniform").estimate(Errors(errors[mask], targeted[mask], chance[mask], targeted, 30))
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(found, targeted.mean())


def test_exact_with_right_imputed_errors_and_wrong_propensities() -> None:
    errors, _, chance, mask = one_mask()
    flat = torch.full_like(chance, 0.3)[mask]
    found = Tdr(propensity="uniform").estimate(Errors(errors[mask], errors[mask], flat, errors, 30))
    torch.testing.assert_close(found, errors.mean())


def test_nearly_unbiased_with_right_propensities_and_less_spread_than_plain() -> None:
    cells = small_cells(200)
    # Imputed errors that are right but for a constant: what the step corrects.
    errors, imputed, chance = single(cells.errors), single(cells.errors + 1.0), single(cells.propensity)
    found: dict[type, list[float]] = {Tdr: [], MfDrJl: []}
    for mask in map(torch.from_numpy, cells.masks(500)):
        step = Errors(errors[mask], imputed[mask], chance[mask], imputed, 200)
        for make, values in found.items():
            values.append(float(make(propensity="uniform").estimate(step)))
    np.testing.assert_allclose(found[Tdr], cells.errors.mean(), rtol=1e-4)
    assert np.std(found[MfDrJl]) > 0.05


def test_the_gradient_goes_through_the_step() -> None:
    errors, wrong, chance, mask = one_mask()
    shift = torch.zeros((), requires_grad=True)
    step = Errors(errors[mask] * (1.0 + shift), wrong[mask], chance[mask], wrong, 30)
    Tdr(propensity="uniform").estimate(step).backward()
    weights = 1.0 / chance[mask]
    assert shift.grad is not None
    torch.testing.assert_close(shift.grad, (weights * errors[mask]).sum() / weights.sum())


@pytest.mark.slow
def test_true_propensities_beat_none_on_random_ratings() -> None:
    simulation, true = selected("monotone")
    weighted, naive = Tdr(propensity=true), MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(weighted, simulation) < error_on_test(naive, simulation) - 0.15
