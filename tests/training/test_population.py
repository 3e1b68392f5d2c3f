"""Survey shares in the likelihood: the multinomial of the mean level probabilities, and what it corrects."""

import numpy as np
import pytest
import torch
from exact import level_probabilities
from factories import log_of, random_matrix, tiny_model
from scipy.special import softmax
from scipy.stats import norm

from mnar_recsys import MNARRecommender, simulate_ratings
from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingScale
from mnar_recsys.errors import ConfigError
from mnar_recsys.training.population import PopulationMarginal

SHARES = (0.5, 0.3, 0.2)


@pytest.mark.parametrize("decoder", ["categorical", "ordinal", "gaussian"])
def test_it_is_the_log_likelihood_of_the_mean_level_probabilities(decoder: str) -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    model = tiny_model(log, seed=3, decoder=decoder)
    generator = torch.Generator().manual_seed(0)
    z, log_w = torch.randn(6, 4, 1, generator=generator), torch.randn(6, 4, generator=generator)
    with torch.no_grad():
        found = PopulationMarginal(SHARES, 200, log.scale).log_likelihood(model, z, log_w, generator)
    flat = z.double().numpy().reshape(-1)
    if decoder == "gaussian":
        mean = model.decoder.distribution(
            (z @ model.decoder.weight[0].T + model.decoder.bias)[..., None, :], slice(None)
        )
        edges = np.array([-np.inf, 1.5, 2.5, np.inf])[:, None, None]
        below = norm.cdf(edges, mean.mean.detach().reshape(-1, 5), mean.sd.item())
        p = np.moveaxis(np.diff(below, axis=0), 0, -1)
    else:
        p = level_probabilities(model, flat)  # (S * B, P, R)
    weight = softmax(log_w.numpy(), axis=0).reshape(-1) / 4
    expected = 200 * np.dot(SHARES, np.log(np.einsum("g,gjr->r", weight, p) / 5))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_shares_must_fit_the_scale() -> None:
    with pytest.raises(ConfigError, match="a share for each level of 5 levels from 1 to 5; found 3"):
        PopulationMarginal(SHARES, 10, RatingScale(1, 5, 1))
    with pytest.raises(ConfigError, match="a share for each level"):
        PopulationMarginal(SHARES, 10, RatingScale(1, 5))
    for shares in ((0.5, 0.6), (), (1.5, -0.5)):
        with pytest.raises(ValueError, match="shares of 0 or more that sum to 1"):
            ModelConfig(population_marginal=shares)


@pytest.mark.slow
def test_shares_known_for_sure_set_the_level_of_a_model_without_selection() -> None:
    data = simulate_ratings("monotone", n_users=600, n_items=60, seed=1, ratings_per_user=15)
    complete = data.truth.block(0, 600)[0]
    shares = tuple((np.bincount(complete.astype(int).ravel(), minlength=6)[1:] / complete.size).tolist())
    settings = {"missing": "ignorable", "exposure_size": 0, "max_steps": 400, "latent_size": 4}
    settings |= {"inference": "variational", "device": "cpu"}
    unrated = np.ones(complete.shape, dtype=bool)
    unrated[data.train.rows, data.train.items] = False
    users, items = np.nonzero(unrated)
    bias = {}
    for name, change in {"alone": {}, "told": {"population_marginal": shares, "population_size": 300_000}}.items():
        model = MNARRecommender(**settings, **change).fit(data.train, seed=0)
        bias[name] = float((model.predictor.predict(users, items).mean - complete[users, items]).mean())
    assert bias["alone"] > 0.2
    assert abs(bias["told"]) < 0.5 * bias["alone"]
