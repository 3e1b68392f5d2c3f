"""The items' variational weights: KL against torch's, draws against their moments, and their place in the model."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mnar_recsys.config import FEW_ITEMS, ModelConfig, Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.model.build import build_model
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.weight_posterior import WeightPosterior
from mnar_recsys.training import Trainer


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return simulate_ratings("popularity", n_users=80, n_items=40, seed=1, ratings_per_user=4).train


def test_kl_is_that_of_independent_normals() -> None:
    mean = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for prior_mean, per_dimension in ((None, True), (mean.mean(1, keepdim=True), True), (mean[..., :1, :1], False)):
        posterior = WeightPosterior(mean, prior_mean=prior_mean, per_dimension=per_dimension)
        with torch.no_grad():
            posterior.log_sd.uniform_(-3, 0, generator=torch.Generator().manual_seed(1))
            posterior.log_prior_sd.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
        centre = torch.zeros(()) if posterior.prior_mean is None else posterior.prior_mean
        wanted = kl_divergence(
            Normal(mean, posterior.log_sd.exp()), Normal(centre.expand_as(mean), posterior.log_prior_sd.exp())
        ).sum()
        torch.testing.assert_close(posterior.kl(mean), wanted)


def test_draws_have_the_posterior_moments_and_clear_restores_the_mean() -> None:
    mean = torch.full((1, 4000, 2), 0.7)
    posterior = WeightPosterior(mean)
    posterior.resample(torch.Generator().manual_seed(0))
    drawn = posterior.draw(mean).detach()
    sd = posterior.log_sd.exp().flatten()[0].item()
    assert abs(drawn.mean().item() - 0.7) < 3 * sd / np.sqrt(8000)
    assert abs(drawn.std().item() / sd - 1) < 3 / np.sqrt(2 * 8000)
    posterior.clear()
    assert posterior.draw(mean) is mean


def test_weights_are_variational_on_small_logs_and_where_all_items_are_summed_out() -> None:
    def decided(n_ratings: int = 10_000, n_items: int = FEW_ITEMS, **chosen: object) -> str:
        settings = Settings().replace(chosen)
        return settings.resolve(has_levels=True, n_ratings=n_ratings, n_users=500, n_items=n_items).model.item_weights

    more = FEW_ITEMS + 1
    assert [decided(), decided(n_items=more), decided(9_999, more)] == ["variational", "point", "variational"]
    assert decided(n_items=more, sampled_items="all") == "variational"
    for decoder in ("gaussian", "student-t"):
        assert [decided(decoder=decoder), decided(decoder=decoder, n_items=more)] == ["variational", "point"]
    for setting in ({"sampled_items": 100}, {"estimator": "sampled"}, {"item_weights": "point"}, {"stop": "held-out"}):
        assert decided(**setting) == "point"


def test_training_moves_the_posterior_and_leaves_the_mean_in_place(log: RatingLog) -> None:
    settings = Settings().replace({"max_steps": 40, "samples": 3, "stop": "never", "item_weights": "variational"})
    model = build_model(settings.model, log, 0)
    assert model.decoder.weight_posterior is not None
    start = model.decoder.weight_posterior.log_prior_sd.detach().clone()
    Trainer(model, log, settings, seed=0).run()
    assert not torch.equal(start, model.decoder.weight_posterior.log_prior_sd)
    assert model.decoder.current()[0] is model.decoder.weight  # predictions use the posterior mean
    assert model.weight_kl().item() > 0


def test_kl_of_a_step_is_counted_once_a_pass_over_the_users(log: RatingLog) -> None:
    """The weights' gradient with the rated cells' likelihood switched off is that of KL / N."""
    settings = Settings().replace({"samples": 2, "stop": "never", "item_weights": "variational"})
    trainer = Trainer(build_model(settings.model, log, 0), log, settings, seed=0)
    cost = trainer.weight_cost()
    (gradient,) = torch.autograd.grad(cost, trainer.model.exposure.posterior.log_prior_sd)
    posterior, weight = trainer.model.exposure.posterior, trainer.model.exposure.weight
    coupled = torch.nn.functional.pad(
        trainer.model.coupling.weight_variance(trainer.model.decoder.weight_posterior), (0, 6)
    )
    second_moment = (posterior.log_sd.exp().square() + coupled + weight.square()).sum(0)
    wanted = len(weight) - second_moment / posterior.log_prior_sd.exp().square()
    torch.testing.assert_close(gradient, wanted)


@pytest.fixture
def coupled(log: RatingLog) -> MnarVae:
    """A model whose exposure and mask move with its decoder, every part of q away from its start."""
    settings = ModelConfig(item_weights="variational", exposure_sees_taste=True, latent_size=2, exposure_size=1)
    model = build_model(settings, log, 0)
    assert model.coupling is not None
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (model.coupling.weight, model.coupling.bias):
            parameter.normal_(std=0.8, generator=generator)
        for posterior in model._posteriors():
            posterior.log_sd.uniform_(-2, 0, generator=generator)
    return model


def test_coupled_draws_have_the_stated_covariance(coupled: MnarVae) -> None:
    weights, biases, exposure = coupled._posteriors()
    generator = torch.Generator().manual_seed(0)
    decoder, path, bias, mask = [], [], [], []
    with torch.no_grad():
        for _ in range(4000):
            coupled.resample_weights(generator)
            decoder.append(coupled.decoder.current()[0][0])
            bias.append(coupled.decoder.current()[1][0])
            path.append(coupled.exposure.current())
            mask.append(coupled.missing.bias())
        w, v, c, b = (torch.stack(draws) - torch.stack(draws).mean(0) for draws in (decoder, path, bias, mask))
        g = coupled.coupling.weight[0]
        w_sd, v_sd, c_sd = (posterior.log_sd.exp() for posterior in (weights, exposure, biases))
        for found, wanted, spread in (
            ((w * v[..., :2]).mean(0), -g * w_sd[0] ** 2, w_sd[0] * (v_sd[:, :2] ** 2 + 2 * (g * w_sd[0]) ** 2).sqrt()),
            (v[..., :2].square().mean(0), v_sd[:, :2] ** 2 + coupled.coupling.weight_variance(weights), None),
            (v[..., 2].square().mean(0), v_sd[:, 2] ** 2, None),  # the exposure's own block goes with nothing
            ((c * b).mean(0), -coupled.coupling.bias[0] * c_sd[0] ** 2, None),
        ):
            error = (wanted.abs() * np.sqrt(2) if spread is None else spread) / np.sqrt(4000)
            assert ((found - wanted).abs() / error).mean() < 1.2  # .8 on average if it is right
        coupled.clear_weights()
        assert coupled.exposure.current() is coupled.exposure.weight
        assert coupled.missing.bias() is coupled.missing.item_bias


def test_coupled_kl_is_the_mean_of_log_q_less_log_p(coupled: MnarVae) -> None:
    weights, biases, exposure = coupled._posteriors()
    g = coupled.coupling.weight[0]
    generator = torch.Generator().manual_seed(1)
    gaps = []
    with torch.no_grad():
        for _ in range(3000):
            coupled.resample_weights(generator)
            (w, c), v = coupled.decoder.current(), coupled.exposure.current()
            deviation = w[0] - coupled.decoder.weight[0]
            centre = coupled.exposure.weight.clone()
            centre[:, :2] -= g * deviation
            log_q = (
                Normal(coupled.decoder.weight, weights.log_sd.exp()).log_prob(w).sum()
                + Normal(coupled.decoder.bias, biases.log_sd.exp()).log_prob(c).sum()
                + Normal(centre, exposure.log_sd.exp()).log_prob(v).sum()
            )
            log_p = (
                Normal(weights.prior_mean, weights.log_prior_sd.exp()).log_prob(w).sum()
                + Normal(biases.prior_mean, biases.log_prior_sd.exp()).log_prob(c).sum()
                + Normal(0.0, exposure.log_prior_sd.exp()).log_prob(v).sum()
            )
            gaps.append(log_q - log_p)
        drawn = torch.stack(gaps)
        assert abs(drawn.mean() - coupled.weight_kl()) < 3 * drawn.std() / np.sqrt(3000)


def test_weights_are_coupled_where_the_exposure_sees_the_taste(log: RatingLog) -> None:
    for sees_taste in (True, False):
        settings = ModelConfig(item_weights="variational", exposure_sees_taste=sees_taste)
        assert (build_model(settings, log, 0).coupling is not None) == sees_taste
