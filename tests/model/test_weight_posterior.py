"""The items' variational weights: KL against torch's, draws against their moments, and their place in the model."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mnar_recsys.config import ModelConfig, Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.model.build import build_model
from mnar_recsys.model.weight_posterior import WeightPosterior
from mnar_recsys.training import Trainer


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return simulate_ratings("popularity", n_users=80, n_items=40, seed=1, ratings_per_user=4).train


def test_kl_is_that_of_independent_normals() -> None:
    mean = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for centred, per_dimension in ((True, True), (False, False)):
        posterior = WeightPosterior(mean, centred=centred, per_dimension=per_dimension)
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


def test_small_logs_get_variational_weights_and_large_ones_points() -> None:
    resolved = [ModelConfig().resolve(has_levels=True, n_ratings=n).item_weights for n in (9_999, 10_000)]
    assert resolved == ["variational", "point"]


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
    cost = trainer._weight_cost()
    (gradient,) = torch.autograd.grad(cost, trainer.model.exposure.posterior.log_prior_sd)
    posterior, weight = trainer.model.exposure.posterior, trainer.model.exposure.weight
    second_moment = (posterior.log_sd.exp().square() + weight.square()).sum(0)
    wanted = len(weight) - second_moment / posterior.log_prior_sd.exp().square()
    torch.testing.assert_close(gradient, wanted)
