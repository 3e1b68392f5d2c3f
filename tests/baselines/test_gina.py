"""GINA: every term of its bound against torch.distributions, the bound against quadrature, and gain over ignoring."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from factories import log_of
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from baselines.gina import Gina, passes
from baselines.gina_model import Batch, GinaModel, LogWeights, Ratings
from mnar_recsys.data import RatingScale, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError

SCALE = RatingScale(1, 5, 1)
P, DRAWS = 6, 3
LOG = log_of(
    [
        [5, np.nan, 1, np.nan, np.nan, np.nan],
        [np.nan] * P,
        [np.nan, 2, 3, np.nan, 4, np.nan],
    ],
    SCALE,
)
EVERYTHING = torch.arange(P)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_model(*, latent_size: int = 2, latent_connection: bool = True) -> GinaModel:
    model = GinaModel(P, latent_size, 3, latent_connection=latent_connection)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator(parameter.numel())))
        model.centre.fill_(0.4)
        model.slope.fill_(1.7)
        model.log_sd.fill_(-1.2)
    return model


def terms_of(model: GinaModel, batch: Batch, items: Tensor = EVERYTHING) -> LogWeights:
    latent_size = len(model.prior_bias) // 2
    noise = torch.randn(DRAWS, batch.n_users, latent_size, generator=generator(1))
    rating_noise = torch.randn(DRAWS, 1, P, generator=generator(2))[..., items]
    return model.log_weights(batch, noise, items, rating_noise)


def r3_like(n_users: int = 300) -> tuple[Split, np.ndarray, np.ndarray, np.ndarray]:
    simulation = simulate_ratings("r3-like", n_users=n_users, n_items=150, ratings_per_user=10, seed=0)
    test = simulation.test
    return (
        Split(mnar_train=simulation.train),
        test.users.take(test.rows),
        test.catalogue.take(test.items),
        test.ratings.astype(float),
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[Gina, Split]:
    split, *_ = r3_like(100)
    return Gina(latent_size=3, hidden_size=4, draws=2, decoder_variance=0.09, learning_rate=0.05).fit(
        split, seed=0
    ), split


@pytest.mark.parametrize("latent_connection", [False, True])
def test_terms_agree_with_torch_distributions(latent_connection: bool) -> None:
    model = random_model(latent_connection=latent_connection)
    batch = Ratings.of_log(LOG).of_users(torch.arange(3))
    found = terms_of(model, batch)
    mean, log_variance = model.posterior_of(batch)
    prior_mean, prior_log_variance = model.prior_of(batch)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    z = mean + posterior.stddev * torch.randn(DRAWS, 3, 2, generator=generator(1))
    dense = torch.from_numpy((LOG.to_scipy().toarray() - 1.0) / 4.0)
    is_rated = torch.from_numpy(LOG.to_scipy().toarray() > 0)
    decoded = torch.sigmoid(model.decoder(model.hidden(z)))
    sd = model.log_sd.exp()
    drawn = decoded + sd * torch.randn(DRAWS, 1, P, generator=generator(2))
    complete = torch.where(is_rated, dense, drawn)
    log_odds = model.item_log_odds + model.slope * (complete - model.centre)
    if model.exposure is not None:
        log_odds = log_odds + model.exposure(z)
    of_ratings = torch.where(is_rated, Normal(decoded, sd).log_prob(dense), 0.0).sum(-1)
    of_mask = Bernoulli(logits=log_odds).log_prob(is_rated.float()).sum(-1)
    expected = LogWeights(
        of_ratings,
        of_mask,
        Normal(prior_mean, (0.5 * prior_log_variance).exp()).log_prob(z).sum(-1),
        posterior.log_prob(z).sum(-1),
    )
    for name, one, other in zip(LogWeights._fields, found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-4, msg=name)
    torch.testing.assert_close(found.total(0.5), found.ratings + 0.5 * found.mask + found.prior - found.posterior)


def test_prior_is_linear_in_the_mask() -> None:
    model = random_model()
    mean, log_variance = model.prior_of(Ratings.of_log(LOG).of_users(torch.arange(3)))
    mask = torch.from_numpy((LOG.to_scipy().toarray() > 0).astype(np.float32))
    expected = mask @ model.prior.weight + model.prior_bias
    torch.testing.assert_close(torch.cat([mean, log_variance], dim=1), expected)


def test_the_order_of_a_users_ratings_does_not_matter() -> None:
    model = random_model()
    batch = Ratings.of_log(LOG).of_users(torch.tensor([2, 0]))
    order = torch.tensor([2, 0, 1, 4, 3])
    shuffled = batch._replace(users=batch.users[order], items=batch.items[order], ratings=batch.ratings[order])
    for one, other in zip(terms_of(model, batch), terms_of(model, shuffled), strict=True):
        torch.testing.assert_close(one, other)


def test_items_of_a_step_stand_for_all_items() -> None:
    model = random_model()
    batch = Ratings.of_log(LOG).of_users(torch.arange(3))
    everything = terms_of(model, batch).mask
    # With 4 of 6 items at least one unrated item of every user is among them.
    some = torch.stack([terms_of(model, batch, torch.tensor(items)).mask for items in combinations(range(P), 4)])
    torch.testing.assert_close(some.mean(0), everything, rtol=1e-4, atol=1e-4)
    assert some.std(0).max() > 0.1


def test_bound_rises_to_the_evidence_with_the_number_of_draws() -> None:
    model = random_model(latent_size=1)
    batch = Ratings.of_log(LOG).of_users(torch.tensor([2]))
    z = torch.linspace(-9.0, 9.0, 2001)[:, None, None]
    nodes, node_weight = (torch.from_numpy(part).float() for part in np.polynomial.hermite_e.hermegauss(40))
    with torch.no_grad():
        prior_mean, prior_log_variance = model.prior_of(batch)
        prior = Normal(prior_mean, (0.5 * prior_log_variance).exp())
        unrated = torch.tensor([0, 3, 5])
        missing = model.mean_rating(z, unrated)[..., None] + model.log_sd.exp() * nodes
        log_odds = model.log_odds(z, unrated)[..., None] + model.effect(missing)
        log_unrated = (torch.sigmoid(-log_odds) @ (node_weight / node_weight.sum())).log().sum(-1)
        decoded = model.mean_rating(z, batch.items)
        log_rated = Normal(decoded, model.log_sd.exp()).log_prob(batch.ratings)
        log_rated = log_rated + torch.sigmoid(model.log_odds(z, batch.items) + model.effect(batch.ratings)).log()
        joint = prior.log_prob(z).sum(-1) + log_rated.sum(-1) + log_unrated
        evidence = (joint.logsumexp(0) + math.log(18.0 / 2000)).item()
        bounds = []
        for draws in (1, 5, 500):
            noise = torch.randn(400 * draws, 1, 1, generator=generator(3))
            rating_noise = torch.randn(400 * draws, 1, P, generator=generator(4))
            log_weight = model.log_weights(batch, noise, EVERYTHING, rating_noise).total(1.0).view(400, draws)
            bounds.append((log_weight.logsumexp(1) - math.log(draws)).mean().item())
    assert bounds[0] < bounds[1] < bounds[2] < evidence + 0.02
    assert abs(bounds[2] - evidence) < 0.03
    assert evidence - bounds[0] > 0.1


def test_loss_is_minus_the_mean_importance_weighted_bound(fitted: tuple[Gina, Split]) -> None:
    model, _ = fitted
    users, items = torch.tensor([4, 8, 15]), torch.arange(150)
    loss = model._loss(users, items, generator(7))
    again = generator(7)
    noise = torch.randn(model.draws, 3, model.latent_size, generator=again)
    rating_noise = torch.randn(model.draws, 3, 150, generator=again)
    weight = (
        model.model.log_weights(model._ratings.of_users(users), noise, items, rating_noise).total(1.0).double().exp()
    )
    np.testing.assert_allclose(loss.item(), -weight.mean(0).log().mean().item(), rtol=1e-5)


def test_passes_visit_everything_equally_often() -> None:
    drawn = passes(10, 4, generator())
    sizes = [next(drawn) for _ in range(6)]
    assert [len(part) for part in sizes] == [4, 4, 2, 4, 4, 2]
    assert (torch.bincount(torch.cat(sizes)) == 2).all()


@pytest.mark.slow
def test_modelling_the_mask_beats_ignoring_it() -> None:
    split, users, items, truth = r3_like()
    aware = Gina(learning_rate=0.03).fit(split, seed=0)
    ignorant = Gina(mask_weight=0.0, learning_rate=0.03).fit(split, seed=0)
    error, naive = (np.square(model.predict(users, items) - truth).mean() for model in (aware, ignorant))
    # The mean logit rises by 3.5 over the scale's range.
    assert aware.model.slope.item() > 1.0
    assert ignorant.model.slope.item() == 0.0
    assert error < 0.75 * naive


def test_prediction_is_the_weighted_mean_of_the_decoder(fitted: tuple[Gina, Split]) -> None:
    model, split = fitted
    log, rows = split.mnar_train, torch.tensor([11, 40])
    with torch.no_grad():
        z, weight = model._weighted_draws(rows)
        mean = 1.0 + 4.0 * model.model.mean_rating(z, torch.arange(150))  # (S, 2, 150)
        expected = (weight[..., None] * mean).sum(0).numpy()
    users, items = np.repeat(log.users.ids[[11, 40]], 150), np.tile(log.catalogue.ids, 2)
    np.testing.assert_allclose(weight.sum(0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(model.predict(users, items), expected.ravel(), rtol=1e-5)
    # Asked for alone, a pair has the same prediction; an unknown item has the user's mean.
    np.testing.assert_allclose(model.predict(users[160:161], items[160:161]), expected[1, 10], rtol=1e-5)
    np.testing.assert_allclose(model.predict(users[:1], np.array([-9])), expected[0].mean(), rtol=1e-4)
    np.testing.assert_allclose(np.exp(2.0 * model.model.log_sd.item()), 0.09, rtol=1e-5)


def test_an_unknown_user_has_the_prior_of_an_empty_mask(fitted: tuple[Gina, Split]) -> None:
    model, split = fitted
    log = split.mnar_train
    with torch.no_grad():
        mean, log_variance = model.model.prior_bias.chunk(2)
        z = mean + (0.5 * log_variance).exp() * model._noise
        expected = 1.0 + 4.0 * model.model.mean_rating(z, torch.arange(150)).mean(0)[0].numpy()
    found = model.predict(np.full(150, -9), log.catalogue.ids)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_expected_if_rated_is_the_plain_mean_without_a_slope(fitted: tuple[Gina, Split]) -> None:
    model, split = fitted
    log = split.mnar_train
    rows, columns = np.arange(20), np.arange(20)
    slope = model.model.slope.item()
    with torch.no_grad():
        model.model.slope.fill_(0.0)
        plain = model.predict(log.users.ids[rows], log.catalogue.ids[columns])
        np.testing.assert_allclose(model._expected_if_rated(rows, columns), plain, rtol=1e-4)
        model.model.slope.fill_(2.0)
        plain = model.predict(log.users.ids[rows], log.catalogue.ids[columns])
        assert (model._expected_if_rated(rows, columns) > plain).all()
        model.model.slope.fill_(slope)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="mask_weight must be a number from 0; found -1"):
        Gina(mask_weight=-1.0)
    with pytest.raises(ConfigError, match="decoder_variance must be a number above 0"):
        Gina(decoder_variance=0.0)
    with pytest.raises(ConfigError, match="draws must be a number above 0"):
        Gina(draws=0)
