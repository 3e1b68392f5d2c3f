"""A sampled posterior put back into the model: its moments are the draws', its encoder proposes for them."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model

from mnar_recsys.config import Settings
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.posterior_draws import PosteriorDraws, SamplingReport
from mnar_recsys.training import Trainer
from mnar_recsys.training.absorb import absorb, fit_encoder, regression

SETTINGS = {"decoder": "ordinal", "missing": "shared", "item_weights": "variational", "exposure_sees_taste": True}
D = 400


def made_up_draws(model: torch.nn.Module, n_users: int, latent: int) -> PosteriorDraws:
    """Draws around the model's weights, the exposure's moving against the decoder's, the mask's biases against its."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    named = {name: value.detach() for name, value in model.named_parameters()}
    weight, bias = 0.3 * normal(D, *named["decoder.weight"].shape), 0.2 * normal(D, *named["decoder.bias"].shape)
    exposure = 0.1 * normal(D, *named["exposure.weight"].shape)
    exposure[..., : weight.shape[-1]] -= 0.7 * weight[:, 0]
    parameters = {
        "decoder.weight": named["decoder.weight"] + weight,
        "decoder.bias": named["decoder.bias"] + bias,
        "exposure.weight": named["exposure.weight"] + exposure,
        "missing.item_bias": named["missing.item_bias"] - 0.5 * bias[:, 0] + 0.05 * normal(D, bias.shape[-1]),
        "missing.slope.raw": named["missing.slope.raw"] + 0.1 * normal(D, 1) + 1,
    }
    z = normal(D, n_users, latent)
    return PosteriorDraws(parameters, z, SamplingReport(1, 0, D, 0.0, 1.0, 0, ()))


@pytest.fixture
def trainer() -> Trainer:
    log = log_of(random_matrix(12, 6, seed=3, density=0.6))
    settings = Settings().replace({**SETTINGS, "latent_size": 2, "exposure_size": 1, "batch_size": 6, "samples": 5})
    model = tiny_model(log, seed=1, **SETTINGS, latent_size=2, exposure_size=1)
    return Trainer(model, log, settings, seed=0)


def test_regression_is_least_squares_in_each_place() -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(size=(50, 2, 3))
    target = rng.normal(size=(50, 3))
    found = regression(torch.from_numpy(target).float(), torch.from_numpy(given).float())
    for place in range(3):
        expected, *_ = np.linalg.lstsq(given[:, :, place], target[:, place], rcond=None)
        np.testing.assert_allclose(found[:, place].numpy(), expected, atol=5e-3)


def test_the_model_has_the_means_of_the_draws_and_its_posteriors_their_spread(trainer: Trainer) -> None:
    model = trainer.model
    draws = made_up_draws(model, trainer.log.n_users, model.latent_size)
    absorb(trainer, draws)
    for name, value in model.named_parameters():
        if name in draws.parameters:
            torch.testing.assert_close(value.detach(), draws.parameters[name].mean(0))
    # What the variational posterior now draws is spread as the draws are, and moves together as they do.
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[torch.Tensor]] = {"weight": [], "exposure": [], "bias": [], "mask": []}
    with torch.no_grad():
        for _ in range(4000):
            model.resample_weights(generator)
            weight, bias = model.decoder.current()
            for name, value in zip(found, (weight, model.exposure.current(), bias, model.missing.bias()), strict=True):
                found[name].append(value.clone())
    model.clear_weights()
    stacked = {name: torch.stack(values) for name, values in found.items()}
    expected = {
        "weight": draws.parameters["decoder.weight"], "exposure": draws.parameters["exposure.weight"],
        "bias": draws.parameters["decoder.bias"],
    }  # fmt: skip
    for name, values in expected.items():
        torch.testing.assert_close(stacked[name].std(0), values.std(0), rtol=0.08, atol=0)
    for a, b in ((stacked["exposure"][..., :2], stacked["weight"][:, 0]), (stacked["mask"], stacked["bias"][:, 0])):
        slope = ((a - a.mean(0)) * (b - b.mean(0))).mean(0) / b.var(0)
        wanted = -0.7 if a.dim() == 3 else -0.5
        torch.testing.assert_close(slope, torch.full_like(slope, wanted), rtol=0, atol=0.15)


def test_the_learned_prior_is_the_best_one_for_the_moments(trainer: Trainer) -> None:
    model = trainer.model
    absorb(trainer, made_up_draws(model, trainer.log.n_users, model.latent_size))
    priors = [p for name, p in model.named_parameters() if name.endswith((".log_prior_sd", ".prior_mean"))]
    model.decoder.kl().backward()
    for part in priors:
        if part.grad is not None:
            assert part.grad.abs().max() < 1e-2


def test_the_encoder_comes_to_propose_what_the_draws_want(trainer: Trainer) -> None:
    model = trainer.model
    draws = made_up_draws(model, trainer.log.n_users, model.latent_size)
    kept = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    batch = make_batch(trainer.log, trainer.train_users)
    noise = torch.randn((20, batch.n_users, model.latent_size), generator=torch.Generator().manual_seed(5))

    def bound() -> float:
        total = 0.0
        for number in range(0, D, 40):
            with draws.at(model, number), torch.no_grad():
                weights, _ = model.log_weights(batch, noise, model.estimator(marginal=True))
                total += float(importance_bound(weights.total).mean())
        return total / 10

    before = bound()
    fit_encoder(trainer, draws, steps=60)
    assert bound() > before + 0.02
    for name, value in kept.items():
        assert torch.equal(model.state_dict()[name], value)
