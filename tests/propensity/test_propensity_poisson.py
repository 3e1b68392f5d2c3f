"""Poisson factorisation: the bound against Monte Carlo and the evidence, its ascent, planted blocks."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import gamma
from worlds import block_probability, cross_entropy, dense, log_of_mask, random_mask, simulated

from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.propensity.poisson import FACTORS, PoissonFactorization, Side
from mnar_recsys.propensity.popularity import UserItemPopularity

TINY = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)


def log_poisson(mask: np.ndarray, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """log P(mask) with rates user * item, draws first, (S,); 0 and 1 have factorial 1."""
    rate = user[:, :, None] * item[:, None, :]
    return (mask * np.log(rate) - rate).sum(axis=(1, 2))


def test_bound_is_its_own_expectation_and_below_the_evidence() -> None:
    model = PoissonFactorization(factors=1, shape=0.8, rate_shape=0.9, tolerance=1e-12).fit(
        Split(log_of_mask(TINY)), seed=0
    )
    rng, draws = np.random.default_rng(0), 200_000

    def draw(side: Side) -> tuple[np.ndarray, np.ndarray]:
        """Draw factors from the posterior, (S, V), and return log p - log q of factors and rates, (S,)."""
        shape, rate = side.shape[:, 0], side.rate[:, 0]
        factor = rng.gamma(shape, 1 / rate, size=(draws, len(shape)))
        owner = rng.gamma(0.9 + 0.8, 1 / side.owner_rate, size=factor.shape)
        prior = gamma.logpdf(factor, 0.8, scale=1 / owner) + gamma.logpdf(owner, 0.9, scale=1 / 0.9)
        posterior = gamma.logpdf(factor, shape, scale=1 / rate)
        posterior = posterior + gamma.logpdf(owner, 0.9 + 0.8, scale=1 / side.owner_rate)
        return factor, (prior - posterior).sum(axis=1)

    (user, user_term), (item, item_term) = draw(model.users), draw(model.items)
    log_weights = log_poisson(TINY, user, item) + user_term + item_term
    error = log_weights.std() / np.sqrt(draws)
    assert model.bounds[-1] == pytest.approx(log_weights.mean(), abs=4 * error)
    # Jensen: a bound, and here one nat below what it bounds, as posteriors of products are far from independent.
    evidence = evidence_from_the_prior(rng)
    assert evidence - 1.5 < model.bounds[-1] < evidence


def evidence_from_the_prior(rng: np.random.Generator, draws: int = 500_000) -> float:
    """Log of the mean probability of the mask under draws from the prior; its standard error is about .005."""

    def factors(count: int) -> np.ndarray:
        owner = rng.gamma(0.9, 1 / 0.9, size=(draws, count))
        return np.maximum(rng.gamma(0.8, 1 / owner), 1e-300)

    return float(logsumexp(log_poisson(TINY, factors(2), factors(3))) - np.log(draws))


@pytest.mark.parametrize("factors", [1, 4])
def test_bound_never_falls_and_settles(factors: int) -> None:
    log = log_of_mask(random_mask(block_probability(90, 60), seed=0))
    model = PoissonFactorization(factors=factors).fit(Split(log), seed=0)
    rises = np.diff(model.bounds)
    assert (rises > -1e-9 * abs(model.bounds[-1])).all()
    assert rises[-1] <= 1e-6 * abs(model.bounds[-1])


def test_planted_blocks_are_found_with_as_many_factors_as_needed() -> None:
    truth = block_probability(240, 160)
    log = log_of_mask(random_mask(truth, seed=0))
    model = PoissonFactorization().fit(Split(log), seed=0)
    found = dense(model, log)
    assert model.users.shape.shape[1] == 2
    least = cross_entropy(truth, truth)
    margins = cross_entropy(truth, dense(UserItemPopularity().fit(Split(log), seed=0), log)) - least
    assert cross_entropy(truth, found) - least < 0.2 * margins
    # Each kind of people has a factor of its own, and so have the items that they rate.
    kind = model.users.mean.argmax(axis=1)
    assert max((kind[::2] == 0).mean(), (kind[::2] == 1).mean()) > 0.95
    assert max((kind[1::2] == 0).mean(), (kind[1::2] == 1).mean()) > 0.95
    assert (kind[::2] == kind[1::2]).mean() < 0.1


@pytest.mark.parametrize("preset", ["popularity", "r3-like"])
def test_simulated_masks_need_one_factor_and_are_recovered(preset: str) -> None:
    world = simulated(preset)
    model = PoissonFactorization().fit(world.split, seed=0)
    found = dense(model, world.split.mnar_train)
    assert model.users.shape.shape[1] == FACTORS[0]
    two_way = dense(UserItemPopularity().fit(world.split, seed=0), world.split.mnar_train)
    least = cross_entropy(world.truth, world.truth)
    share = np.full_like(world.truth, world.split.mnar_train.n_ratings / world.truth.size)
    uniform, margins, poisson = (cross_entropy(world.truth, p) - least for p in (share, two_way, found))
    assert poisson < margins + 0.05 * uniform


def test_bad_settings_and_no_settling_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shape", "rate_shape", "tolerance"):
        with pytest.raises(ConfigError, match=f"{name} must be a number above 0"):
            PoissonFactorization(**{name: -1.0})
    with pytest.raises(ConfigError, match="factors must be a whole number of at least 1; found 0"):
        PoissonFactorization(factors=0)
    monkeypatch.setattr("mnar_recsys.propensity.poisson._MAX_SWEEPS", 2)
    with pytest.raises(DivergedError, match="did not settle in 2 sweeps"):
        PoissonFactorization().fit(Split(log_of_mask(TINY)), seed=0)
