"""R-hat and effective sample size on chains whose mixing is known."""

import numpy as np
import pytest

pytest.importorskip("pyro")

from mnar_recsys.training.chain_statistics import bulk_ess, monitor, split_r_hat


def autoregressive(rho: float, chains: int, draws: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((chains, draws))
    for step in range(1, draws):
        values[:, step] = rho * values[:, step - 1] + np.sqrt(1 - rho**2) * values[:, step]
    return values


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_effective_size_of_an_autoregression_is_known(rho: float) -> None:
    draws = autoregressive(rho, 4, 4000)
    assert bulk_ess(draws) == pytest.approx(16_000 * (1 - rho) / (1 + rho), rel=0.15)
    assert split_r_hat(draws) < 1.02
    assert bulk_ess(np.exp(3 * draws)) == pytest.approx(bulk_ess(draws))  # ranks: a heavy tail changes nothing


def test_chains_that_disagree_are_doubtful() -> None:
    draws = autoregressive(0.3, 2, 400)
    assert not monitor("fine", draws).is_doubtful
    assert monitor("apart in location", draws + np.array([[0.0], [1.0]])).r_hat > 1.1
    assert monitor("apart in spread", draws * [[1.0], [3.0]]).r_hat > 1.1
    drifting = monitor("drifting", draws + np.linspace(0, 2, 400))
    assert drifting.r_hat > 1.1
    assert drifting.is_doubtful
    stuck = monitor("stuck", np.zeros((2, 50)))
    assert np.isnan(stuck.r_hat)
    assert stuck.is_doubtful


def test_what_is_said_of_a_quantity() -> None:
    found = monitor("x", autoregressive(0.0, 2, 5000) * 2 + 1)
    assert (found.mean, found.sd) == pytest.approx((1, 2), abs=0.1)
    assert (found.lower, found.upper) == pytest.approx((1 - 3.29, 1 + 3.29), abs=0.2)
