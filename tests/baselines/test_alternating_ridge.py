"""The ridge solver against scikit-learn, and its stationary points by automatic differentiation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from baselines.alternating_ridge import Factors, Ratings, Shrinkage, fit_factors, solve_rows

SHAPE = (25, 18)


@pytest.fixture
def ratings() -> Ratings:
    """Half the cells of a matrix of rank 2 with noise; user 0 and item 0 have none."""
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random(SHAPE) < 0.5)
    rated = (rows > 0) & (columns > 0)
    rows, columns = rows[rated], columns[rated]
    taste = rng.normal(size=(SHAPE[0], 2)) @ rng.normal(size=(2, SHAPE[1]))
    values = 3 + taste[rows, columns] + 0.3 * rng.normal(size=len(rows))
    return Ratings(rows, columns, values, SHAPE, covariate=rng.exponential(size=len(rows)))


def test_each_row_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    rows = rng.choice([0, 1, 3], size=40)
    design, target, penalty = rng.normal(size=(40, 3)), rng.normal(size=40), np.array([0.5, 2.0, 7.0])
    found = solve_rows(rows, 4, design, target, penalty)
    for row in (0, 1, 3):
        mine = rows == row
        # Ridge has one penalty: scale the regressors so that each gets its own.
        fitted = Ridge(alpha=1.0, fit_intercept=False).fit(design[mine] / np.sqrt(penalty), target[mine])
        np.testing.assert_allclose(found[row], fitted.coef_ / np.sqrt(penalty), atol=1e-8)
    np.testing.assert_array_equal(found[2], 0.0)


def objective(parts: dict[str, Tensor], ratings: Ratings, shrinkage: Shrinkage, mean: float) -> Tensor:
    """The objective written out again, for gradients."""
    rows, columns = torch.from_numpy(ratings.rows), torch.from_numpy(ratings.columns)
    predicted = mean + (parts["user"][rows] * parts["item"][columns]).sum(-1)
    total = shrinkage.factors * (parts["user"].square().sum() + parts["item"].square().sum())
    if shrinkage.offsets is not None:
        predicted = predicted + parts["user_offset"][rows] + parts["item_offset"][columns]
        total = total + shrinkage.offsets * (parts["user_offset"].square().sum() + parts["item_offset"].square().sum())
    if ratings.covariate is not None:
        predicted = predicted + parts["slope"][rows] * torch.from_numpy(ratings.covariate)
        total = total + shrinkage.slopes * parts["slope"].square().sum()
    return 0.5 * ((torch.from_numpy(ratings.values) - predicted).square().sum() + total)


def parts_of(factors: Factors) -> dict[str, Tensor]:
    names = ("user", "item", "user_offset", "item_offset", "slope")
    return {name: torch.tensor(getattr(factors, name), requires_grad=True) for name in names}


@pytest.mark.parametrize("offsets", [None, 4.0])
@pytest.mark.parametrize("with_covariate", [False, True])
def test_the_gradient_vanishes_at_the_solution(ratings: Ratings, offsets: float | None, with_covariate: bool) -> None:
    ratings = ratings if with_covariate else replace(ratings, covariate=None)
    shrinkage = Shrinkage(0.8, offsets, slopes=3.0)
    factors = fit_factors(ratings, 2, shrinkage, seed=0, tolerance=1e-12)
    parts = parts_of(factors)
    value = objective(parts, ratings, shrinkage, factors.mean)
    assert float(value.detach()) == pytest.approx(factors.objective(ratings, shrinkage))
    value.backward()
    used = [part.grad for part in parts.values() if part.grad is not None]
    assert len(used) == 2 + 2 * (offsets is not None) + with_covariate
    assert max(float(gradient.abs().max()) for gradient in used) < 1e-3
    # The same gradients are far from 0 elsewhere.
    parts = parts_of(replace(factors, user=factors.user + 0.1))
    objective(parts, ratings, shrinkage, factors.mean).backward()
    assert parts["user"].grad is not None
    assert float(parts["user"].grad.abs().max()) > 0.1


@pytest.mark.parametrize("shrinkage", [0.5, 2.0])
def test_a_complete_matrix_gives_its_singular_values_less_the_shrinkage(shrinkage: float) -> None:
    # min over U V' of |X - U V'|^2 / 2 + s (|U|^2 + |V|^2) / 2 has the singular vectors of X and max(d - s, 0).
    rng = np.random.default_rng(2)
    complete = rng.normal(size=(12, 9))
    complete -= complete.mean()
    rows, columns = np.indices(complete.shape).reshape(2, -1)
    fitted = fit_factors(
        Ratings(rows, columns, complete.ravel(), complete.shape), 9, Shrinkage(shrinkage), seed=0, tolerance=1e-13
    )
    left, values, right = np.linalg.svd(complete, full_matrices=False)
    assert (values < 2.0).any()
    expected = (left * np.maximum(values - shrinkage, 0.0)) @ right
    np.testing.assert_allclose(fitted.predict(rows, columns), expected.ravel(), atol=1e-4)


def test_only_the_product_of_two_shrinkages_would_matter(ratings: Ratings) -> None:
    factors = fit_factors(ratings, 2, Shrinkage(0.8), seed=0, tolerance=1e-10)
    # At the solution users and items carry the same norm, whatever their number: no scaling of one lowers the penalty.
    assert np.square(factors.user).sum() == pytest.approx(np.square(factors.item).sum(), rel=1e-3)


def test_scaling_ratings_and_shrinkage_scales_predictions(ratings: Ratings) -> None:
    plain = replace(ratings, covariate=None)
    doubled = replace(plain, values=10 * plain.values)
    one = fit_factors(plain, 2, Shrinkage(0.8), seed=0, tolerance=1e-12)
    ten = fit_factors(doubled, 2, Shrinkage(8.0), seed=0, tolerance=1e-12)
    cells = (plain.rows, plain.columns)
    np.testing.assert_allclose(ten.predict(*cells), 10 * one.predict(*cells), rtol=1e-3)


def test_rows_without_ratings_and_the_unknown_stay_at_zero(ratings: Ratings) -> None:
    factors = fit_factors(ratings, 2, Shrinkage(0.8, 4.0), seed=0)
    for table in (factors.user, factors.item, factors.user_offset, factors.item_offset, factors.slope):
        assert not table[[0, -1]].any()
        assert table[1:-1].any()
