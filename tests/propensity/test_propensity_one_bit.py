"""1-bit matrix completion: a closed form, a certificate of optimality, the exact projection, planted structure."""

import numpy as np
import pytest
from scipy.special import expit, logit
from worlds import block_probability, cross_entropy, dense, log_of_mask, random_mask

from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError, DataError, DivergedError
from mnar_recsys.propensity.one_bit import BOUNDS, Ball, OneBitCompletion, complete, project_nuclear
from mnar_recsys.propensity.popularity import UserItemPopularity

BLOCKS = block_probability(60, 50)


def checkerboard(n_users: int, n_items: int) -> np.ndarray:
    return (np.arange(n_users)[:, None] + np.arange(n_items)) % 2 == 0


@pytest.mark.parametrize(("bound", "limit", "expected"), [(0.7, None, 0.7), (1.5, None, 1.5), (5.0, 1.2, 1.2)])
@pytest.mark.parametrize("intercept", [True, False])
def test_checkerboard_in_closed_form(bound: float, limit: float | None, expected: float, intercept: bool) -> None:
    """By symmetry log-odds are t on rated cells, -t on others, with nuclear norm t sqrt(N P): t is tau or gamma."""
    log = log_of_mask(checkerboard(8, 6))
    model = OneBitCompletion(nuclear_bound=bound, max_log_odds=limit, intercept=intercept, tolerance=1e-7)
    found = dense(model.fit(Split(log), seed=0), log)
    np.testing.assert_allclose(found, expit(np.where(checkerboard(8, 6), expected, -expected)), atol=1e-5)
    assert model.chosen == bound


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("hidden", [0.0, 0.2])
def test_solution_has_no_way_up(intercept: bool, hidden: float) -> None:
    """For concave f on a ball, f(best) - f(L) <= max over the ball of <gradient, M - L>, which is explicit."""
    mask = random_mask(BLOCKS, seed=0).astype(float)
    seen = 1.0 - random_mask(np.full(mask.shape, hidden), seed=1)
    radius = 1.0 * np.sqrt(mask.size)
    found = complete(mask, seen, Ball(radius, 20.0), intercept=intercept, tolerance=1e-7)
    gradient = seen * (mask - expit(found))
    # The intercept is what leaves the least nuclear norm; the optimum has the gradient orthogonal to it.
    centres = np.linspace(-4, 4, 801) if intercept else [0.0]
    norms = [np.linalg.norm(found - centre, "nuc") for centre in centres]
    centre = centres[int(np.argmin(norms))]
    assert min(norms) <= radius * 1.01
    gap = radius * np.linalg.norm(gradient, 2) - (gradient * (found - centre)).sum()
    assert gap < 0.02 * seen.sum() * 0.3  # against a loss of some .3 nats a cell
    if intercept:
        assert abs(gradient.sum()) < 1e-3 * seen.sum()
    value = (seen * (mask * found - np.logaddexp(0.0, found))).sum()
    rng = np.random.default_rng(2)
    for size in (0.01, 0.1):
        moved = found - centre + size * rng.normal(size=found.shape)
        other = centre + project_nuclear(moved, min(radius, np.linalg.norm(found - centre, "nuc")))
        assert (seen * (mask * other - np.logaddexp(0.0, other))).sum() <= value + 1e-6 * abs(value)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7)])
def test_projection_is_the_nearest_matrix_of_the_ball(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_array_equal(project_nuclear(matrix, values.sum() + 1.0), matrix)
    for radius in (0.5, 2.0, values.sum() - 0.1):
        found = project_nuclear(matrix, radius)
        # The singular values are lowered by one amount and cut at 0, so that they sum to the radius.
        lows = np.linspace(0.0, values.max(), 200_001)
        low = lows[np.argmin(np.abs(np.maximum(values - lows[:, None], 0.0).sum(axis=1) - radius))]
        np.testing.assert_allclose(found, (left * np.maximum(values - low, 0.0)) @ right, atol=1e-4)
        assert np.linalg.norm(found, "nuc") == pytest.approx(radius)


def test_planted_blocks_are_found_and_margins_miss_them() -> None:
    truth = block_probability(150, 120)
    log = log_of_mask(random_mask(truth, seed=0))
    model = OneBitCompletion().fit(Split(log), seed=0)
    found = dense(model, log)
    assert model.chosen in BOUNDS
    least = cross_entropy(truth, truth)
    margins = cross_entropy(truth, dense(UserItemPopularity().fit(Split(log), seed=0), log)) - least
    assert cross_entropy(truth, found) - least < 0.35 * margins
    assert found.mean() == pytest.approx(log.n_ratings / truth.size, rel=0.01)


def test_the_bound_is_as_tight_as_the_mask_allows() -> None:
    plain = OneBitCompletion().fit(Split(log_of_mask(random_mask(np.full((100, 80), 0.2), seed=0))), seed=0)
    assert plain.chosen == BOUNDS[0]
    structured = block_probability(100, 80, inside=0.8, outside=0.02)
    loose = OneBitCompletion().fit(Split(log_of_mask(random_mask(structured, seed=0))), seed=0)
    # Half the distance between the log-odds of .8 and .02 is 2.6: the root mean square of L, whose rank is 1.
    assert loose.chosen in BOUNDS[2:]


def test_a_log_of_one_rating_has_propensities_near_the_share() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    found = dense(OneBitCompletion().fit(Split(log_of_mask(mask)), seed=0), log_of_mask(mask))
    assert found.mean() == pytest.approx(1 / 12, rel=0.05)
    assert found.argmax() == 6


def test_without_an_intercept_a_sparse_mask_is_overestimated() -> None:
    truth = np.full((80, 60), 0.05)
    log = log_of_mask(random_mask(truth, seed=0))
    share = log.n_ratings / truth.size
    bound = abs(logit(share))
    plain = dense(OneBitCompletion(nuclear_bound=bound, intercept=False).fit(Split(log), seed=0), log).mean()
    centred = dense(OneBitCompletion(nuclear_bound=bound).fit(Split(log), seed=0), log).mean()
    assert centred == pytest.approx(share, rel=0.01)
    assert plain > 1.2 * share


def test_large_logs_full_masks_and_bad_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of_mask(random_mask(BLOCKS, seed=0))
    with pytest.raises(ConfigError, match=r"at most 2,999 cells; found 3,000\. Choose als or poisson"):
        OneBitCompletion(max_cells=2999).fit(Split(log), seed=0)
    with pytest.raises(DataError, match="one_bit needs unrated cells; all 9 are rated"):
        OneBitCompletion().fit(Split(log_of_mask(np.ones((3, 3), dtype=bool))), seed=0)
    for name in ("nuclear_bound", "max_log_odds", "tolerance"):
        with pytest.raises(ConfigError, match=f"{name} must be a number above 0"):
            OneBitCompletion(**{name: 0.0})
    monkeypatch.setattr("mnar_recsys.propensity.one_bit._MAX_STEPS", 2)
    with pytest.raises(DivergedError, match="did not settle in 2 steps"):
        OneBitCompletion().fit(Split(log), seed=0)
