"""The joint bound of users against exact likelihoods."""

from itertools import product

import numpy as np
import pytest
import torch
from exact import Enumeration, enumerate_model, normal_grid
from factories import log_of, random_matrix, tiny_model
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from mnar_recsys.data import RatingLog
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction.user_bounds import user_bounds
from mnar_recsys.prediction.weight_draws import WeightDraws

NAN = np.nan
MATRIX = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, 3, 1, 2], [NAN, NAN, 2, NAN]])
LEVELS = np.array([1.0, 2.0, 3.0])


def likelihoods(model: MnarVae, log: RatingLog, *, on_levels: bool = False, seeds: int = 40) -> NDArray[np.float64]:
    """Unbiased estimates of p(x_obs, s) of every user: (seeds, N)."""
    users = np.arange(log.n_users)
    return np.exp([user_bounds(model, log, users, seed=seed, on_levels=on_levels) for seed in range(seeds)])


def assert_mean_is(estimates: NDArray[np.float64], exact: NDArray[np.float64], *, power: float = 0.02) -> None:
    error = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
    assert (error < power * exact).all()
    assert (np.abs(estimates.mean(0) - exact) < 3.5 * error).all(), (estimates.mean(0) - exact) / error


def selection(model: MnarVae, centre: float) -> NDArray[np.float64]:
    """What each level adds with a positive shared slope, a unit being a quarter of the range."""
    slope = np.logaddexp(0, model.missing.get_parameter("slope.raw").detach().double().numpy())
    return np.asarray(slope * (LEVELS - centre) / 0.5)


def rounded_enumeration(model: MnarVae, by_level: NDArray[np.float64]) -> Enumeration:
    """x is a Gaussian rounded to the nearest of 1, 2, 3; whether it is rated depends on the rounded value."""
    z, prior = normal_grid(241)
    weight, shift = (value.detach().double().numpy() for value in (model.decoder.weight, model.decoder.bias))
    mean = 0.5 + 3 * expit(z[:, None] * weight[0, :, 0] + shift[0])  # (G, P), half a step beyond the scale
    below = norm.cdf(np.array([1.5, 2.5]), mean[..., None], np.exp(model.decoder.log_sd.detach().double().numpy()))
    pi = expit(by_level + model.missing.item_bias.detach().double().numpy()[:, None])
    masses = np.diff(below, prepend=0, append=1, axis=-1)
    return Enumeration(prior, masses, np.broadcast_to(pi, masses.shape), LEVELS)


@pytest.mark.parametrize("decoder", ["ordinal", "categorical", "gaussian"])
def test_bounds_of_ratings_on_levels(decoder: str) -> None:
    log = log_of(MATRIX)
    model = tiny_model(log, seed=2, decoder=decoder, missing="shared")
    by_level = selection(model, float(log.ratings.mean()))
    if decoder == "gaussian":
        enumeration = rounded_enumeration(model, by_level)
    else:
        enumeration = enumerate_model(model, log, by_level)
    exact = np.exp([enumeration.log_evidence(row) for row in MATRIX])
    assert_mean_is(likelihoods(model, log, on_levels=True), exact)


@pytest.mark.parametrize("decoder", ["ordinal", "gaussian"])
def test_all_that_a_user_can_do_has_probability_one(decoder: str) -> None:
    """Two items, each unrated or rated 1, 2 or 3: the sum that makes bounds of decoders comparable."""
    everything = np.array(list(product((NAN, 1.0, 2.0, 3.0), repeat=2)))
    log = log_of(everything)
    model = tiny_model(log, seed=4, decoder=decoder, missing="shared")
    total = likelihoods(model, log, on_levels=True).sum(1, keepdims=True)
    assert_mean_is(total, np.ones(1))
    if decoder == "gaussian":  # as densities the same bounds are not probabilities
        assert abs(likelihoods(model, log, seeds=5).sum(1).mean() - 1) > 0.05


def test_bounds_average_over_draws_of_the_weights() -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    settings = {"exposure_size": 1, "exposure_sees_taste": True, "missing": "shared", "user_activity": True}
    model = tiny_model(log, seed=3, item_weights="variational", **settings)
    with torch.no_grad():
        model.decoder.weight_posterior.log_sd.fill_(-0.5)  # uncertain enough to be drawn
    users, draws, found = np.arange(1, 7), WeightDraws(model, 5), []
    for number in range(len(draws)):
        frozen = tiny_model(log, seed=3, **settings)  # without a posterior: a draw of the weights is all it has
        with draws.at(number), torch.no_grad():
            weight, bias = model.decoder.current()
            frozen.decoder.weight.copy_(weight)
            frozen.decoder.bias.copy_(bias)
            frozen.exposure.weight.copy_(model.exposure.current())
            frozen.missing.item_bias.copy_(model.missing.bias())
        found.append(user_bounds(frozen, log, users, seed=5))
    np.testing.assert_allclose(user_bounds(model, log, users, seed=5), np.mean(found, axis=0), rtol=1e-4)
    likelihood = np.exp(user_bounds(model, log, users, seed=5, predictive=True))
    np.testing.assert_allclose(likelihood, np.exp(found).mean(0), rtol=1e-3)
    assert np.ptp(found, axis=0).max() > 0.1


def test_the_samples_can_be_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(MATRIX)
    model = tiny_model(log, seed=2, missing="shared")
    whole = user_bounds(model, log, np.arange(4), seed=1)
    monkeypatch.setattr("mnar_recsys.prediction.user_bounds._CELLS_AT_ONCE", 4 * 130)
    np.testing.assert_allclose(user_bounds(model, log, np.arange(4), seed=1), whole, rtol=1e-5)
